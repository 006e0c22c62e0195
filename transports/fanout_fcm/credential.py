"""Google's service account file: the fields that are used, and the refusals. Pure, and without a crypto library."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field

import orjson

from fanout.plugin import ConfigurationError, Secret

__all__ = ["GOOGLE_TOKEN_URL", "PROJECT", "ServiceAccount", "read_service_account"]

GOOGLE_TOKEN_URL = "https://oauth2.googleapis.com/token"
"""The only token endpoint that a credential may name: a file from elsewhere could send our assertion anywhere
(CVE-2026-66901)."""

PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{0,99}")
"""A project id or number, also the old form `example.com:name`."""

_EMAIL = re.compile(r"[^\s@]{1,128}@[A-Za-z0-9.-]{1,128}")
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{0,128}")
_PEM = re.compile(r"\s*-----BEGIN (RSA )?PRIVATE KEY-----([A-Za-z0-9+/=\s]+)-----END (RSA )?PRIVATE KEY-----\s*")
_HINT = "use the JSON file from Firebase console > Project settings > Service accounts > Generate new private key, unchanged"


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """The signer of a project. `project` may be empty; `private_key` is PEM."""

    project: str
    email: str
    key_id: str
    private_key: Secret = field(repr=False)


def read_service_account(secret: Secret, *, any_token_url: bool = False) -> ServiceAccount:
    """The account in the text of a service account file. `any_token_url`: the file's `token_uri` is not going to be
    used.

    Raises `ConfigurationError`, which names the fault in the file and shows nothing of it.
    """
    what = f"service_account{f' ({secret.origin})' if secret.origin else ''}"
    try:
        values = orjson.loads(secret.reveal())
    except orjson.JSONDecodeError:
        raise ConfigurationError(f"{what} is no JSON: {_HINT}.") from None
    if not isinstance(values, dict):
        raise ConfigurationError(f"{what} is no JSON object: {_HINT}.")
    kind = values.get("type")
    if kind == "external_account":
        raise ConfigurationError(
            f'{what} is of type external_account: write auth = "application_default" and credentials_file instead, or {_HINT}.'
        )
    if kind != "service_account":
        raise ConfigurationError(f"{what} is not of type service_account (a google-services.json is not): {_HINT}.")
    texts = {
        name: values.get(name, "")
        for name in ("project_id", "client_email", "private_key_id", "private_key", "token_uri")
    }
    for name, pattern in (("client_email", _EMAIL), ("private_key_id", _KEY_ID)):
        if not isinstance(texts[name], str) or not pattern.fullmatch(texts[name]):
            raise ConfigurationError(f"{what} has no usable {name}: {_HINT}.")
    if not isinstance(texts["private_key"], str) or not _is_rsa_key(texts["private_key"]):
        raise ConfigurationError(f"{what} has no RSA private key in PEM under private_key: {_HINT}.")
    if not any_token_url and texts["token_uri"] not in ("", GOOGLE_TOKEN_URL):
        raise ConfigurationError(
            f"{what} names a token_uri other than {GOOGLE_TOKEN_URL}: {_HINT}, or set token_url to the endpoint you mean."
        )
    project = texts["project_id"]
    if project and not (isinstance(project, str) and PROJECT.fullmatch(project)):
        raise ConfigurationError(f"{what} has no usable project_id: {_HINT}.")
    return ServiceAccount(
        project or "",
        texts["client_email"],
        texts["private_key_id"],
        Secret(texts["private_key"], secret.origin),
    )


_RSA = bytes.fromhex("2a864886f70d010101")
"""The object identifier 1.2.840.113549.1.1.1 (RFC 8017, appendix A.1), which a PKCS #8 key names."""


def _is_rsa_key(text: str) -> bool:
    """Whether the text has the form of such a key, whole. Looked at here without a crypto library, which takes long to
    import."""
    found = _PEM.fullmatch(text)
    if found is None or found.group(1) != found.group(3):
        return False
    try:
        der = base64.b64decode("".join(found.group(2).split()), validate=True)
    except binascii.Error:
        return False
    # A sequence whose length takes two bytes (RSA keys of 1,024 to 16,384 bits), and which ends where the text ends.
    if der[:2] != b"\x30\x82" or int.from_bytes(der[2:4], "big") != len(der) - 4:
        return False
    return found.group(1) is not None or _RSA in der[:64]
