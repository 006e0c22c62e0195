"""The `[service]` table: one that works, and each way in which it can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fanout.config import ApiKeySettings, IssuerSettings, Limits, ServiceSettings, Settings, UserKeySettings, load
from fanout.core.secret import Secret
from fanout.errors import ConfigurationError
from fanout.testing.scripted import ScriptedSettings

APPS = 'storage = "sqlite:fanout.db"\n[apps.default.transports.pigeon]\n[apps.shop.transports.pigeon]\n[apps.polling]\n'
HASH = "sha256:" + "0" * 64
SECRET = "fus_0123456789ab_" + "s" * 43
ISSUER = '[[service.issuers]]\nissuer = "https://login.example.com/"\naudience = "us"\napps = { c = "default" }\n'
KEY = f'[[service.keys]]\nid = "0123456789ab"\nhash = "{HASH}"\n'
USER_KEY = f'[[service.user_keys]]\nid = "0123456789ab"\nsecret = "{SECRET}"\n'


def read(text: str, folder: Path, **environ: str) -> Settings:
    file = folder / "fanout.toml"
    file.write_text(APPS + text)
    return load(file, lambda name, place: ScriptedSettings, environ)


def refusal(text: str, folder: Path, **environ: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        read(text, folder, **environ)
    said = str(raised.value)
    assert said.startswith("service.")
    assert said.endswith((".", "?"))
    assert "\n" not in said
    return said


def test_a_whole_table(tmp_path: Path) -> None:
    settings = read(
        """
        [service]
        origins = ["https://app.example.com:8443", "http://localhost:3000"]
        host_names = { "App.example.com" = "default", "localhost:8080" = "polling" }
        blocked = ["stolen-client"]
        [[service.issuers]]
        issuer = "https://login.example.com/"
        audience = "https://push.example.com"
        algorithms = ["RS256", "ES256"]
        user_claim = "oid"
        user_prefix = "work:"
        app_claim = "azp"
        scopes = ["push"]
        apps = { "client-id-of-shop" = "shop" }
        ca_file = "ca.pem"
        [[service.issuers]]
        issuer = "http://127.0.0.1:8081"
        audience = ["a", "b"]
        jwks_uri = "http://localhost:8081/keys?p=1"
        apps = { c = "polling" }
        [service.limits]
        body_bytes = 1000
        posts_per_minute = 60
        """
        + KEY
        + 'app = "shop"\nrole = "app"\n'
        + USER_KEY,
        tmp_path,
    ).service
    assert settings.origins == ("https://app.example.com:8443", "http://localhost:3000")
    assert settings.host_names == {"app.example.com": "default", "localhost:8080": "polling"}
    assert settings.blocked == ("stolen-client",)
    first, second = settings.issuers
    assert first == IssuerSettings(
        issuer="https://login.example.com/",
        audience="https://push.example.com",
        algorithms=("RS256", "ES256"),
        user_claim="oid",
        user_prefix="work:",
        app_claim="azp",
        scopes=("push",),
        apps={"client-id-of-shop": "shop"},
        ca_file=tmp_path / "ca.pem",
    )
    assert (first.audiences, second.audiences) == (("https://push.example.com",), ("a", "b"))
    assert (second.algorithms, second.user_claim, second.app_claim) == (("RS256",), "sub", None)
    assert settings.keys == (ApiKeySettings(id="0123456789ab", hash=HASH, app="shop"),)
    assert settings.user_keys == (UserKeySettings(id="0123456789ab", secret=Secret(SECRET)),)
    assert settings.limits == Limits(body_bytes=1000, posts_per_minute=60)
    assert settings.authenticated


def test_without_a_table_nobody_is_known(tmp_path: Path) -> None:
    settings = read("", tmp_path).service
    assert settings == ServiceSettings()
    assert not settings.authenticated
    assert (settings.limits.body_bytes, settings.limits.recipients, settings.limits.posts_per_minute) == (
        524_288,
        10_000,
        60_000,
    )
    for table in (ISSUER, KEY, USER_KEY):
        assert read(table, tmp_path).service.authenticated


def test_the_secret_of_a_user_key_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "user.key").write_text(SECRET + "\n")
    filed = USER_KEY.replace(f'secret = "{SECRET}"', 'secret_file = "user.key"')
    assert read(filed, tmp_path).service.user_keys[0].secret == Secret(SECRET)
    bare = USER_KEY.replace(f'secret = "{SECRET}"', "")
    found = read(bare, tmp_path, FANOUT_SERVICE_0123456789AB_SECRET=SECRET).service
    assert found.user_keys[0].secret == Secret(SECRET)
    assert "more than once" in refusal(filed, tmp_path, FANOUT_SERVICE_0123456789AB_SECRET=SECRET)


def test_settings_already_made_are_taken_as_they_are() -> None:
    made = ServiceSettings(keys=(ApiKeySettings(id="0123456789ab", hash=HASH),))
    tables: dict[str, Any] = {"storage": "memory:", "apps": {"default": {"transports": {"pigeon": {}}}}}
    for service in (made, {"keys": list(made.keys)}, {"keys": made.keys}):
        assert load({**tables, "service": service}, lambda *_: ScriptedSettings, {}).service == made


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[service]\nhost_name = {}\n", ["service.host_name is no setting", "host_names"]),
        ("[service]\nhost_names = 3\n", ["service.host_names must be a table"]),
        ('[service]\nhost_names = { "https://x" = "default" }\n', ["host_names", "'https://x'", "without scheme"]),
        ('[service]\nhost_names = { "x" = "shopp" }\n', ["host_names.x", "'shopp'", "default, polling, shop"]),
        ('[service]\nblocked = "x"\n', ["service.blocked must be an array"]),
        ('[service]\norigins = "https://x"\n', ["service.origins must be an array"]),
        *(
            (f'[service]\norigins = ["{origin}"]\n', ["service.origins", f"'{origin}'", "https://app.example.com"])
            for origin in (
                "*",
                "null",
                "app.example.com",
                "http://app.example.com",
                "https://app.example.com/",
                "https://app.example.com/x",
                "https://App.example.com",
                "https://app.example.com:443",
                "https://app.example.com:",
                "https://a@app.example.com",
                "https://*.example.com",
                "https://app.example.com, https://b.example.com",
            )
        ),
        ('[service]\norigins = ["https://x", "https://x"]\n', ["origins", "'https://x' is there twice"]),
        ("[service.limit]\n", ["service.limit is no setting", "limits"]),
        ("[service.limits]\nbody = 1\n", ["service.limits.body is no setting", "body_bytes"]),
        ("[service.limits]\nrecipients = 0\n", ["service.limits.recipients is 0"]),
        ('[service.limits]\nrecipients = "1"\n', ["service.limits.recipients must be a whole number"]),
        ("[service.limits]\ninflated_bytes = 5\n", ["inflated_bytes is 5", "body_bytes"]),
        ("[service.issuers]\n", ["service.issuers must be an array of tables", "[[service.issuers]]"]),
        ("[service]\nissuers = [3]\n", ["service.issuers[0] must be a table", "[[service.issuers]]"]),
        ("[[service.issuers]]\n", ["service.issuers[0].issuer is missing"]),
        (ISSUER + ISSUER, ["issuers", "'https://login.example.com/' is there twice"]),
        (ISSUER + 'audiences = "x"\n', ["service.issuers[0].audiences is no setting", "audience"]),
        (ISSUER.replace("https", "http"), ["issuers[0].issuer must be https"]),
        (ISSUER.replace("https://", ""), ["issuers[0].issuer is no URL"]),
        (ISSUER.replace("example.com/", "example.com/?x=1"), ["issuer must have no query"]),
        (ISSUER.replace("login", "a:b@login"), ["issuer must have no user"]),
        (ISSUER.replace("login", "lo gin"), ["issuer holds characters"]),
        (ISSUER.replace("login.example.com/", "[::1"), ["issuer is no URL"]),
        (ISSUER + 'jwks_uri = "http://x/"\n', ["jwks_uri must be https"]),
        (ISSUER.replace('"us"', "[]"), ["audience is empty"]),
        (ISSUER.replace('"us"', '["us", ""]'), ["audience is empty"]),
        (ISSUER.replace('"us"', "5"), ["audience must be a text in quotes or an array"]),
        (ISSUER.replace('{ c = "default" }', "{}"), ["apps is empty"]),
        (ISSUER.replace('"default"', '"nobody"'), ["issuers: apps.c names the app 'nobody'"]),
        (ISSUER + 'algorithms = ["HS256"]\n', ["algorithms must be an array", "'RS256'"]),
        (ISSUER + 'algorithms = ["none"]\n', ["algorithms must be an array"]),
        (ISSUER + "algorithms = []\n", ["algorithms is empty"]),
        (ISSUER + "scopes = []\n", ["scopes must hold at least one"]),
        (ISSUER + 'scopes = ["two words"]\n', ["scopes must hold at least one"]),
        (ISSUER + 'user_claim = ""\n', ["user_claim is empty"]),
        (ISSUER + 'app_claim = ""\n', ["app_claim is empty"]),
        (KEY + KEY, ["keys", "'0123456789ab' is there twice"]),
        (KEY.replace("0123456789ab", "x"), ["service.keys[0].id must be the 12"]),
        (KEY.replace("sha256:", ""), ["service.keys[0].hash must be"]),
        (KEY + 'role = "admin"\n', ["service.keys[0].role must be one of 'app'"]),
        (KEY + 'app = "nobody"\n', ["keys: 0123456789ab names the app 'nobody'"]),
        (USER_KEY + 'app = "nobody"\n', ["user_keys: 0123456789ab names the app 'nobody'"]),
        (USER_KEY.replace("ssss", ""), ["secret is not that of the user key 0123456789ab"]),
        (USER_KEY.replace(f'secret = "{SECRET}"', ""), ["user_keys[0].secret is missing", "secret_file"]),
    ],
)
def test_what_is_wrong_is_one_sentence_with_its_place(text: str, words: list[str], tmp_path: Path) -> None:
    said = refusal(text, tmp_path)
    assert all(word in said for word in words), said
    assert "sssss" not in said
