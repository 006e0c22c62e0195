"""`fanout keys api`: what is printed can be pasted, the key works with it, and the configuration cannot call by
itself."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

import pytest

from fanout.bootstrap import SystemClock, make_settings
from fanout.registry import Registry
from fanout.service.auth import Authenticator, AuthError, Caller, user_token

STORAGE = 'storage = "sqlite:fanout.db"\n[apps.default.transports.pigeon]\n[apps.shop.transports.pigeon]\n'


def caller(shell: Any, lines: str, bearer: str) -> Caller:
    """Who the service says it is, configured with what was printed."""
    file: Path = shell.folder / "service.toml"
    file.write_text(STORAGE + lines)

    async def ask() -> Caller:
        settings = make_settings(file, registry=Registry())
        async with Authenticator(settings.service, SystemClock()) as auth:
            return await auth.authenticate({"authorization": f"Bearer {bearer}"})

    return asyncio.run(ask())


def test_a_key_of_the_app(shell: Any) -> None:
    result = shell("keys", "api", "--app", "shop")
    assert result.code == 0
    first, *lines = result.out.splitlines()
    assert first.startswith("# The key, for the app's server: fak_")
    key = first.rpartition(" ")[2]
    found = caller(shell, "\n".join(lines), key)
    assert (found.app, found.user, found.kind) == ("shop", None, "key")
    assert found.client_id in key
    # The comment aside, nothing of the key is in the configuration.
    assert key[17:] not in "\n".join(lines) + result.err
    assert "shown this once" in result.err


def test_a_key_of_the_app_in_a_file(shell: Any) -> None:
    result = shell("keys", "api", "--out", "app.key")
    file = shell.folder / "app.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert caller(shell, result.out, file.read_text()).app == "default"
    assert file.read_text()[17:] not in result.out + result.err


@pytest.mark.parametrize("out", [[], ["--out", "user.key"]])
def test_a_key_to_sign_user_tokens_with(shell: Any, out: list[str]) -> None:
    result = shell("keys", "api", "--kind", "signer", "--app", "shop", *out)
    assert result.code == 0
    secret = next(line for line in result.out.splitlines() if line.startswith("secret")).partition('"')[2][:-1]
    if out:
        assert secret == "user.key"
        secret = (shell.folder / "user.key").read_text()
        assert secret not in result.out + result.err
    found = caller(shell, result.out, user_token(secret, "shop", "alice"))
    assert (found.app, found.user, found.kind) == ("shop", "alice", "delegated")


def test_a_key_with_a_role_and_an_end(shell: Any) -> None:
    (said,) = shell("keys", "api", "--json", "--role", "send", "--expires", "2100-01-31").lines
    lines = [f"{name} = '{value}'" for name, value in said["settings"].items()]
    found = caller(shell, "\n".join(["[[service.keys]]", *lines]), said["key"])
    assert (found.role, found.ends_at) == ("send", 4_105_123_200.0)
    (over,) = shell("keys", "api", "--json", "--expires", "2020-01-31T00:00:00Z").lines
    lines = [f"{name} = '{value}'" for name, value in over["settings"].items()]
    with pytest.raises(AuthError, match="expired"):
        caller(shell, "\n".join(["[[service.keys]]", *lines]), over["key"])


def test_the_json_form(shell: Any) -> None:
    (said,) = shell("keys", "api", "--json").lines
    assert (said["kind"], said["role"], said["table"]) == ("api", "app", "service.keys")
    assert sorted(said["settings"]) == ["app", "hash", "id"]
    assert said["key"].startswith(f"fak_{said['settings']['id']}_")
    (filed,) = shell("keys", "api", "--json", "--kind", "signer", "--out", "u.key").lines
    assert (filed["key"], filed["table"]) == (None, "service.user_keys")
    assert filed["settings"]["secret_file"] == "u.key"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["api", "--role", "admin"], ["--role 'admin'", "app, send, devices, read, operator"]),
        (["api", "--role", "user"], ["--role user", "--kind signer"]),
        (["api", "--kind", "admin"], ["--kind 'admin'", "caller or signer"]),
        (["api", "--kind", "signer", "--role", "send"], ["--role and --expires are for --kind caller"]),
        (["api", "--expires", "soon"], ["--expires 'soon'", "2030-01-31"]),
        (["api", "--app", ""], ["--app is empty"]),
        (["api", "--out", "fanout.toml"], ["--out fanout.toml exists already"]),
        (["vapid", "--app", "shop"], ["--app is for `fanout keys api`"]),
        (["vapid", "--role", "user"], ["--role is for `fanout keys api`"]),
        (["apis"], ["'apis'", "api, vapid"]),
    ],
)
def test_bad_input(shell: Any, words: list[str], told: list[str]) -> None:
    result = shell("keys", *words)
    assert (result.code, result.out) == (2, "")
    (sentence,) = result.err.strip().splitlines()
    for word in ("fanout: ", *told):
        assert word in sentence
