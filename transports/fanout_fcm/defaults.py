"""Where Google's application default credentials are found ("How Application Default Credentials works"), and their
kinds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from fanout.plugin import ConfigurationError, Secret
from fanout_fcm.credential import GOOGLE_TOKEN_URL, read_service_account
from fanout_fcm.grants import (
    ByFile,
    ByUrl,
    ExternalGrant,
    Grant,
    ImpersonatedGrant,
    MetadataGrant,
    ServiceAccountGrant,
    UserGrant,
)
from fanout_fcm.signer import Signer

__all__ = ["find", "grant_of", "quota_project"]

_FILE = "GOOGLE_APPLICATION_CREDENTIALS"
_LIMIT = 1024 * 1024
_STS = re.compile(r"https://[a-z0-9.-]*sts[a-z0-9.-]*\.googleapis\.com(:443)?/v1/token")
_IMPERSONATION = re.compile(
    r"https://[a-z0-9.-]*iamcredentials[a-z0-9.-]*\.googleapis\.com(/v1/projects/-/serviceAccounts/[A-Za-z0-9@._:-]{1,200}:generateAccessToken)"
)
_URL = re.compile(r"https?://[^\s/@]+(/[^\s#]*)?")
_USER_ENDPOINTS = ("", GOOGLE_TOKEN_URL, "https://accounts.google.com/o/oauth2/token")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")


def find(environ: Mapping[str, str], home: Path) -> Secret | None:
    """The credential's text: of the file that GOOGLE_APPLICATION_CREDENTIALS names, else of the file that gcloud
    writes; None for the metadata server. Raises `ConfigurationError`."""
    named = environ.get(_FILE, "")
    if named:
        return _read(Path(named), f"the file that {_FILE} names")
    folder = Path(environ["CLOUDSDK_CONFIG"]) if environ.get("CLOUDSDK_CONFIG") else home / ".config" / "gcloud"
    path = folder / "application_default_credentials.json"
    if path.is_file():
        return _read(path, "gcloud's application_default_credentials.json")
    if environ.get("NO_GCE_CHECK", "").lower() == "true":
        raise ConfigurationError(
            f"There are no application default credentials: set {_FILE} to a credential's file, or credentials_file here. "
            "(NO_GCE_CHECK is set, so no metadata server is asked.)"
        )
    return None


def _read(path: Path, what: str) -> Secret:
    try:
        with path.open("rb") as stream:
            text = stream.read(_LIMIT).decode()
    except OSError as error:
        raise ConfigurationError(
            f"auth is application_default, and {what} cannot be read ({error.strerror}): correct it."
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"auth is application_default, and {what} is no JSON: correct it.") from None
    return Secret(text, str(path), str(path))


def grant_of(secret: Secret | None, environ: Mapping[str, str], *, token_url: str = "", iam_url: str = "") -> Grant:
    """How access tokens are got with this credential; with None, from the metadata server. Raises `ConfigurationError`,
    and shows nothing.

    `token_url` replaces the token endpoint, `iam_url` the host of the IAM credentials API.
    """
    if secret is None:
        return MetadataGrant(
            environ.get("GCE_METADATA_HOST") or environ.get("GCE_METADATA_ROOT") or "metadata.google.internal"
        )
    return _Reader(secret, token_url, iam_url).grant(_values(secret), secret)


def quota_project(secret: Secret | None) -> str:
    """The project that a user's calls are counted for, where the credential names one."""
    found = _values(secret).get("quota_project_id") if secret is not None else None
    return found if isinstance(found, str) and re.fullmatch(r"[a-z0-9.:-]{1,100}", found) else ""


def _what(secret: Secret) -> str:
    return f"The credential{f' ({secret.origin})' if secret.origin else ''}"


def _values(secret: Secret) -> dict[str, Any]:
    try:
        values = orjson.loads(secret.reveal())
    except orjson.JSONDecodeError:
        values = None
    if not isinstance(values, dict):
        raise ConfigurationError(f"{_what(secret)} is no JSON object: use the file as Google's tools wrote it.")
    return values


class _Reader:
    """One credential's file made into a grant. The file must name Google's hosts: one from elsewhere could send our
    secrets anywhere."""

    def __init__(self, secret: Secret, token_url: str, iam_url: str) -> None:
        self._what = _what(secret)
        self._origin = secret.origin
        self._token_url = token_url
        self._iam_url = iam_url

    def grant(self, values: Mapping[str, Any], text: Secret) -> Grant:
        match values.get("type"):
            case "service_account":
                account = read_service_account(text, any_token_url=bool(self._token_url))
                return ServiceAccountGrant(Signer(account), self._token_url or GOOGLE_TOKEN_URL)
            case "authorized_user":
                if values.get("token_uri", "") not in _USER_ENDPOINTS and not self._token_url:
                    raise self._refused(f"names a token_uri other than {GOOGLE_TOKEN_URL}")
                client, secret, refresh = (
                    Secret(self._text(values, name)) for name in ("client_id", "client_secret", "refresh_token")
                )
                return UserGrant(client, secret, refresh, self._token_url or GOOGLE_TOKEN_URL)
            case "external_account":
                return self._external(values)
            case "impersonated_service_account":
                source = values.get("source_credentials")
                if not isinstance(source, Mapping):
                    raise self._refused("has no source_credentials")
                inner = Secret(orjson.dumps(source).decode(), self._origin)
                return self._impersonated(values, self.grant(source, inner), values.get("delegates", []), None)
            case kind:
                kinds = "service_account, authorized_user, external_account and impersonated_service_account"
                said = kind if isinstance(kind, str) and re.fullmatch(r"[a-z_]{1,40}", kind) else "unknown"
                raise self._refused(f"is of type {said}, and there are {kinds}")

    def _external(self, values: Mapping[str, Any]) -> Grant:
        url = values.get("token_url", "")
        if not self._token_url and not (isinstance(url, str) and _STS.fullmatch(url)):
            raise self._refused("names a token_url that is not Google's Security Token Service")
        source = values.get("credential_source")
        if not isinstance(source, Mapping):
            raise self._refused("has no credential_source")
        grant: Grant = ExternalGrant(
            audience=self._text(values, "audience"),
            subject_token_type=self._text(values, "subject_token_type"),
            token_url=self._token_url or str(url),
            source=self._source(source),
            client_id=values.get("client_id", "") or "",
            client_secret=Secret(str(values.get("client_secret") or "")),
            user_project=values.get("workforce_pool_user_project", "") or "",
        )
        if values.get("service_account_impersonation_url"):
            options = values.get("service_account_impersonation")
            lifetime = options.get("token_lifetime_seconds") if isinstance(options, Mapping) else None
            return self._impersonated(values, grant, [], lifetime)
        return grant

    def _source(self, source: Mapping[str, Any]) -> ByFile | ByUrl:
        for name, why in (
            ("environment_id", "AWS's own signatures"),
            ("executable", "a program to be run"),
            ("certificate", "a certificate"),
        ):
            if name in source:
                raise self._refused(
                    f"takes its subject token from {why} ({name}), where only a file and a URL are supported"
                )
        form = source.get("format", {})
        field = ""
        if isinstance(form, Mapping) and form.get("type") == "json":
            field = self._text(form, "subject_token_field_name")
        elif not isinstance(form, Mapping) or form.get("type", "text") != "text":
            raise self._refused("has a credential_source of a format that is neither text nor json")
        path, url, headers = source.get("file"), source.get("url"), source.get("headers") or {}
        if isinstance(path, str) and path and url is None:
            return ByFile(Path(path), field)
        if not (isinstance(url, str) and _URL.fullmatch(url) and path is None):
            raise self._refused("has a credential_source with neither a file nor a usable URL")
        if not isinstance(headers, Mapping) or not all(
            isinstance(name, str) and _HEADER.fullmatch(name) and isinstance(value, str) and value.isprintable()
            for name, value in headers.items()
        ):
            raise self._refused("has a credential_source with unusable headers")
        return ByUrl(url, dict(headers), field)

    def _impersonated(self, values: Mapping[str, Any], source: Grant, delegates: Any, lifetime: Any) -> Grant:
        url = values.get("service_account_impersonation_url", "")
        found = _IMPERSONATION.fullmatch(url) if isinstance(url, str) else None
        if found is None:
            raise self._refused("names a service_account_impersonation_url that is not Google's IAM credentials API")
        if not isinstance(delegates, list) or not all(isinstance(each, str) for each in delegates):
            raise self._refused("has unusable delegates")
        if lifetime is None:
            lifetime = 3600
        if isinstance(lifetime, bool) or not isinstance(lifetime, int) or not 600 <= lifetime <= 43_200:
            raise self._refused("has a token_lifetime_seconds outside of 600 to 43200")
        return ImpersonatedGrant(
            source, self._iam_url + found.group(2) if self._iam_url else url, tuple(delegates), lifetime
        )

    def _text(self, values: Mapping[str, Any], name: str) -> str:
        found = values.get(name)
        if not isinstance(found, str) or not 0 < len(found) <= 4096 or not found.isprintable():
            raise self._refused(f"has no usable {name}")
        return found

    def _refused(self, why: str) -> ConfigurationError:
        return ConfigurationError(f"{self._what} {why}: use a file as Google's tools write it.")
