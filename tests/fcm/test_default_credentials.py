"""Application default credentials: google-auth is asked the same, and says the same to the same endpoints; then real
sockets."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest
from aiohttp import web

from fanout.plugin import (
    Accepted,
    ConfigurationError,
    Delivery,
    Misconfigured,
    Notification,
    Response,
    Scope,
    Secret,
    TokenError,
    Unavailable,
)
from fanout_fcm.defaults import find, grant_of, quota_project
from fanout_fcm.settings import FcmSettings
from fanout_fcm.signer import SCOPE
from fanout_fcm.simulator import FcmSimulator

pytestmark = pytest.mark.anyio

STS = "https://sts.googleapis.com/v1/token"
IAM = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/push@p.iam.gserviceaccount.com:generateAccessToken"
USER: dict[str, Any] = {
    "type": "authorized_user",
    "client_id": "id.apps.googleusercontent.com",
    "client_secret": "client-s3cret",
    "refresh_token": "1//refresh-s3cret",
    "quota_project_id": "quota-project",
}
EXTERNAL: dict[str, Any] = {
    "type": "external_account",
    "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/k8s",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": STS,
}
BY_URL = {"url": "http://127.0.0.1:9/token?a=b", "headers": {"Metadata": "True"}}


class Endpoints:
    """Answers by URL, for us and for google-auth, and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        self.status = 200

    def answer(self, method: str, url: str, headers: Mapping[str, str], body: Any) -> tuple[int, dict[str, str], bytes]:
        raw = body.decode() if isinstance(body, bytes) else (body or "")
        kept = {name.lower(): value for name, value in headers.items() if not name.lower().startswith("x-")}
        kept.pop("accept", None)
        if "form" in kept.get("content-type", ""):
            meant: Any = {name: values[0] for name, values in parse_qs(raw).items()}
        else:
            meant = json.loads(raw) if raw else None
        self.asked.append((method, url, kept, meant))
        if "iamcredentials" in url:
            found: Any = {"accessToken": "impersonated-token", "expireTime": "2035-01-01T00:00:00Z"}
        elif "127.0.0.1:9" in url:
            found = {"access_token": "subject-token"} if "json" in url else "subject-token"
        else:
            found = {"access_token": "google-token-1", "expires_in": 3599, "token_type": "Bearer"}
        if self.status != 200:
            found = {"error": "access_denied"}
        text = found if isinstance(found, str) else json.dumps(found)
        return (
            self.status,
            {
                "metadata-flavor": "Google",
                "content-type": "application/json",
                "date": "Sun, 31 Dec 2034 23:00:00 GMT",
            },
            text.encode(),
        )

    async def ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        status, told, text = self.answer(method, url, headers, body)
        return Told(status, text, told)

    def googles(self) -> Any:
        """The same as a transport of google-auth."""
        import google.auth.transport

        outer = self

        class Answer(google.auth.transport.Response):
            def __init__(self, found: tuple[int, dict[str, str], bytes]) -> None:
                self._found = found

            status = property(lambda self: self._found[0])
            headers = property(lambda self: self._found[1])
            data = property(lambda self: self._found[2])

        class Request(google.auth.transport.Request):
            def __call__(
                self,
                url: str,
                method: str = "GET",
                body: Any = None,
                headers: Any = None,
                timeout: Any = None,
                **more: Any,
            ) -> Answer:
                return Answer(outer.answer(method, url, headers or {}, body))

        return Request()


class Told(Response):
    """An answer with headers."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(status, body, b"")
        self.told = headers

    def header(self, name: str) -> str | None:
        return self.told.get(name)


def secret(values: Mapping[str, Any]) -> Secret:
    return Secret(json.dumps(values), "the.json")


async def ours(values: Mapping[str, Any] | None, now: float = 1_900_000_000.0) -> tuple[str, list[Any]]:
    endpoints = Endpoints()
    grant = grant_of(secret(values) if values is not None else None, {})
    fetched = await grant.fetch(endpoints.ask, now, SCOPE)
    return fetched.text, endpoints.asked


def theirs(values: Mapping[str, Any]) -> tuple[str, list[Any]]:
    google_auth = pytest.importorskip("google.auth", reason="install google-auth (extra dev)")
    if values["type"] == "external_account":
        # Not by `load_credentials_from_dict`, which fetches a token to ask for the name of the project.
        identity_pool = pytest.importorskip("google.auth.identity_pool")
        found = identity_pool.Credentials.from_info(dict(values), scopes=[SCOPE])
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the credentials are the test's own
            found, _ = google_auth.load_credentials_from_dict(dict(values), scopes=[SCOPE])
    endpoints = Endpoints()
    found.refresh(endpoints.googles())
    return found.token, endpoints.asked


def cases(folder: Path) -> dict[str, dict[str, Any]]:
    (folder / "token").write_text("subject-token")
    (folder / "token.json").write_text('{"access_token": "subject-token"}')
    by_file = {"file": str(folder / "token")}
    as_json = {"type": "json", "subject_token_field_name": "access_token"}
    external = {**EXTERNAL, "credential_source": by_file}
    return {
        "user": USER,
        "file": external,
        "file json": {**EXTERNAL, "credential_source": {"file": str(folder / "token.json"), "format": as_json}},
        "url": {**EXTERNAL, "credential_source": BY_URL},
        "url json": {**EXTERNAL, "credential_source": {"url": "http://127.0.0.1:9/json", "format": as_json}},
        "workforce": {
            **external,
            "audience": "//iam.googleapis.com/locations/global/workforcePools/pool/providers/p",
            "workforce_pool_user_project": "123",
        },
        "client": {**external, "client_id": "id", "client_secret": "client-s3cret"},
        "impersonated": {**external, "service_account_impersonation_url": IAM},
        "impersonated, short": {
            **external,
            "service_account_impersonation_url": IAM,
            "service_account_impersonation": {"token_lifetime_seconds": 2800},
        },
        "impersonated by a user": {
            "type": "impersonated_service_account",
            "service_account_impersonation_url": IAM,
            "source_credentials": {name: value for name, value in USER.items() if name != "quota_project_id"},
            "delegates": ["projects/-/serviceAccounts/middle@p.iam.gserviceaccount.com"],
        },
    }


@pytest.mark.parametrize("name", cases(Path("/tmp")))
async def test_googles_own_library_asks_the_same(name: str, tmp_path: Path) -> None:
    values = cases(tmp_path)[name]
    mine, google = await ours(values), theirs(values)
    if name == "impersonated by a user":
        # It asks for the scope of the impersonation, too; the refresh token has what the user granted, whatever is
        # asked.
        for _, _, _, form in (mine[1][0], google[1][0]):
            form.pop("scope", None)
    for _, _, _, form in google[1] + mine[1]:
        if form and "delegates" in form:
            form["delegates"] = form["delegates"] or []
        if form and "options" in form:
            form["options"] = json.loads(unquote(form["options"]))  # written with a blank, or without
    assert mine == google


async def test_googles_own_library_asks_the_metadata_server_the_same() -> None:
    metadata = pytest.importorskip("google.auth.compute_engine._metadata", reason="install google-auth (extra dev)")
    endpoints = Endpoints()
    text, _ = metadata.get_service_account_token(endpoints.googles(), "default", scopes=[SCOPE])
    assert await ours(None) == (text, endpoints.asked)


def test_googles_own_library_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    google_auth = pytest.importorskip("google.auth._default", reason="install google-auth (extra dev)")
    home = tmp_path / "home"
    well_known = home / ".config" / "gcloud" / "application_default_credentials.json"
    named, other = tmp_path / "named.json", tmp_path / "cloudsdk" / "application_default_credentials.json"
    for path in (well_known, named, other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**USER, "client_id": path.parent.name}))
    monkeypatch.setenv("HOME", str(home))
    for variable in ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    for environ in (
        {},
        {"CLOUDSDK_CONFIG": str(other.parent)},
        {"GOOGLE_APPLICATION_CREDENTIALS": str(named), "CLOUDSDK_CONFIG": "x"},
    ):
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        found = find(environ, home)
        assert found is not None
        google = (
            google_auth._get_explicit_environ_credentials()[0] or google_auth._get_gcloud_sdk_credentials()[0]
        ).client_id
        assert json.loads(found.reveal())["client_id"] == google
    assert find({}, tmp_path / "nowhere") is None
    with pytest.raises(ConfigurationError, match="cannot be read"):
        find({"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "absent")}, home)
    with pytest.raises(ConfigurationError, match="There are no application default credentials"):
        find({"NO_GCE_CHECK": "true"}, tmp_path / "nowhere")


def test_a_users_quota_project() -> None:
    assert quota_project(secret(USER)) == "quota-project"
    assert quota_project(secret({**USER, "quota_project_id": "a b\r\n"})) == ""
    assert quota_project(None) == ""


# -- what is refused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "gdch_service_account"}, "is of type gdch_service_account"),
        ({"type": 7}, "is of type unknown"),
        ({"token_url": "https://evil.example/v1/token"}, "not Google's Security Token Service"),
        ({"token_url": "https://sts.googleapis.com.evil.example/v1/token"}, "not Google's Security Token Service"),
        ({"token_url": "http://sts.googleapis.com/v1/token"}, "not Google's Security Token Service"),
        ({"audience": ""}, "no usable audience"),
        ({"subject_token_type": None}, "no usable subject_token_type"),
        ({"credential_source": None}, "no credential_source"),
        ({"credential_source": {"environment_id": "aws1"}}, "environment_id"),
        ({"credential_source": {"executable": {"command": "rm -rf /"}}}, "executable"),
        ({"credential_source": {"certificate": {}}}, "certificate"),
        ({"credential_source": {}}, "neither a file nor a usable URL"),
        ({"credential_source": {"file": "a", "url": "http://b/"}}, "neither a file nor a usable URL"),
        ({"credential_source": {"url": "ftp://b/"}}, "neither a file nor a usable URL"),
        ({"credential_source": {"url": "http://b/", "headers": {"a": "b\r\nc: d"}}}, "unusable headers"),
        ({"credential_source": {"file": "a", "format": {"type": "xml"}}}, "neither text nor json"),
        ({"credential_source": {"file": "a", "format": {"type": "json"}}}, "no usable subject_token_field_name"),
        ({"service_account_impersonation_url": "https://evil.example/x:generateAccessToken"}, "not Google's IAM"),
        ({"service_account_impersonation_url": IAM + "?x"}, "not Google's IAM"),
        (
            {
                "service_account_impersonation_url": IAM,
                "service_account_impersonation": {"token_lifetime_seconds": 1},
            },
            "token_lifetime_seconds",
        ),
    ],
)
def test_a_credential_that_cannot_be_used_is_named(change: dict[str, Any], said: str) -> None:
    values = {**EXTERNAL, "credential_source": {"file": "token"}} | change
    with pytest.raises(ConfigurationError, match=said) as raised:
        grant_of(secret(values), {})
    assert "the.json" in str(raised.value)


@pytest.mark.parametrize("text", ["", "[]", "nonsense"])
def test_what_is_no_credential(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no JSON object"):
        grant_of(Secret(text), {})


def test_the_settings_say_which_way() -> None:
    adc: dict[str, Any] = {"auth": "application_default", "project_id": "p"}
    assert FcmSettings(**adc).project == "p"
    assert FcmSettings(**adc, credentials=secret(USER)).credentials == secret(USER)
    for wrong, said in (
        ({}, "service_account is missing"),
        ({"auth": "application_default"}, "project_id is missing"),
        ({**adc, "service_account": Secret("{}")}, "keep one of them"),
        ({"credentials": secret(USER), "project_id": "p"}, 'write auth = "application_default"'),
        ({**adc, "auth": "adc"}, "write service_account or application_default"),
        ({**adc, "iam_url": "http://x"}, "iam_url"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            FcmSettings(**wrong)


# -- answers


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "misconfigured"),
        (401, "misconfigured"),
        (403, "misconfigured"),
        (429, "unavailable"),
        (503, "unavailable"),
    ],
)
@pytest.mark.parametrize("name", ["user", "file", "url", "impersonated", "metadata"])
async def test_refusals_and_troubles_are_told_apart_and_show_nothing(
    name: str, status: int, kind: str, tmp_path: Path
) -> None:
    endpoints = Endpoints()
    endpoints.status = status
    grant = grant_of(None if name == "metadata" else secret(cases(tmp_path)[name]), {})
    with pytest.raises(TokenError) as raised:
        await grant.fetch(endpoints.ask, 1_900_000_000.0, SCOPE)
    assert raised.value.kind == kind
    assert not any(word in str(raised.value) for word in ("s3cret", "subject-token", "google-token"))
    assert "s3cret" not in repr(grant)


async def test_a_server_that_is_no_metadata_server_is_not_believed() -> None:
    """A captive portal answers everything with 200."""

    async def ask(*_: Any) -> Response:
        return Told(200, b'{"access_token": "google-token-1", "expires_in": 3599}', {})

    with pytest.raises(TokenError, match="is none"):
        await grant_of(None, {}).fetch(ask, 0.0, SCOPE)


async def test_the_end_of_an_impersonated_token_is_by_the_answers_own_clock(tmp_path: Path) -> None:
    endpoints = Endpoints()

    async def ask(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        answer = await endpoints.ask(method, url, headers, body)
        if "iamcredentials" not in url:
            return answer
        return Told(200, answer.body, {"date": "Sun, 31 Dec 2034 23:30:00 GMT"})

    grant = grant_of(secret(cases(tmp_path)["impersonated"]), {})
    assert (await grant.fetch(ask, 0.0, SCOPE)).lifetime == 1800.0  # though our own clock is 65 years behind


@pytest.mark.parametrize("text", ["", "  \n", "a\nb"])
async def test_an_empty_subject_token_is_not_sent(text: str, tmp_path: Path) -> None:
    values = cases(tmp_path)["file"]
    (tmp_path / "token").write_text(text)
    endpoints = Endpoints()
    with pytest.raises(TokenError, match="holds no token"):
        await grant_of(secret(values), {}).fetch(endpoints.ask, 0.0, SCOPE)
    assert endpoints.asked == []


# -- over real sockets


class Metadata:
    """A metadata server that gives out the tokens of a simulated Google."""

    def __init__(self, google: FcmSimulator) -> None:
        self.google = google
        self.seen: list[web.Request] = []
        self.status = 200

    async def __aenter__(self) -> Metadata:
        app = web.Application()
        app.router.add_get("/{path:.*}", self.answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.host = f"127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        headers = {"Metadata-Flavor": "Google"}
        if request.headers.get("Metadata-Flavor") != "Google":
            return web.Response(status=403, headers=headers)
        if self.status != 200:
            return web.Response(status=self.status, headers=headers)
        return web.json_response({"access_token": self.google.tokens.issue(), "expires_in": 3599}, headers=headers)


async def send(google: FcmSimulator, transport: Any) -> Any:
    message = transport.prepare(Notification(title="T"))
    return await transport.send(message, Delivery.of(transport.parse_address(google.address(1))))


async def test_a_push_with_the_machines_own_account(
    folder: Path, transport_to: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG", "NO_GCE_CHECK"):
        monkeypatch.delenv(variable, raising=False)
    async with FcmSimulator(folder=folder) as google, Metadata(google) as metadata:
        monkeypatch.setenv("GCE_METADATA_HOST", metadata.host)
        default = {"auth": "application_default", "service_account": None, "project_id": google.project}
        async with transport_to(google, **default) as transport:
            outcomes = await asyncio.gather(*[send(google, transport) for _ in range(20)])
            assert all(isinstance(outcome, Accepted) for outcome in outcomes)
            (asked,) = metadata.seen
            assert (asked.path, asked.query["scopes"]) == (
                "/computeMetadata/v1/instance/service-accounts/default/token",
                SCOPE,
            )
            assert (await transport.check()).ok
        metadata.status = 404
        async with transport_to(google, **default) as transport:
            outcome = await send(google, transport)
            assert isinstance(outcome, Misconfigured)
            assert outcome.scope is Scope.BINDING
            assert "attach one" in (await transport.check()).problem
        monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
        async with transport_to(google, **default) as transport:
            outcome = await send(google, transport)
            assert isinstance(outcome, Unavailable)
            assert outcome.scope is Scope.BINDING
            assert "GOOGLE_APPLICATION_CREDENTIALS" in outcome.reason
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent"))
        with pytest.raises(ConfigurationError, match="cannot be read"):
            async with transport_to(google, **default):
                pass
