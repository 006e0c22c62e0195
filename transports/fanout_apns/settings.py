"""The settings of an APNs binding."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fanout.plugin import ConfigurationError, Egress, Secret, egress_of, place_of_url, problem_of, refuse

__all__ = ["GATEWAYS", "ApnsSettings"]

GATEWAYS = {"production": "https://api.push.apple.com", "sandbox": "https://api.sandbox.push.apple.com"}
"""Apple's hosts ("Sending notification requests to APNs"). Port 2197 serves where a firewall lets 443 not pass."""

_ID = re.compile(r"[A-Z0-9]{10}")
_TOPIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_GATEWAY = re.compile(r"https://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?")
_PEM = re.compile(r"\s*-----BEGIN (EC )?PRIVATE KEY-----([A-Za-z0-9+/=\s]+)-----END (EC )?PRIVATE KEY-----\s*")
_P256 = bytes.fromhex("2a8648ce3d030107")
"""The object identifier 1.2.840.10045.3.1.7 (RFC 5480, section 2.1.1.1), which every P-256 key names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApnsSettings:
    """One app on one of Apple's environments. Either `key` (with `key_id`, `team_id`, `topic`) or `cert_file` proves
    the identity of the sender.

    `key` is the text of the .p8 file; `cert_file` a certificate in PEM or a .p12 file, `cert_key_file` its key if that
    is apart, `cert_passphrase` the passphrase that either is encrypted with. `topic` is the app's bundle id; with a
    certificate it may be left out. `gateway` replaces Apple's host (a test server, or Apple's with port 2197),
    `ca_file` is trusted besides the system's authorities. `connections` and `streams` (per connection) are upper
    limits, as Apple's own may be lower. `client` chooses the HTTP/2 client. `request_timeout` is in seconds.

    `proxy` is the egress proxy, `http://[USER:PASSWORD@]HOST:PORT`; or "environment" for the values of `HTTPS_PROXY`
    and `NO_PROXY`, or "direct" for none where the configuration has one for all.

    Raises `ConfigurationError` for settings that cannot work.
    """

    topic: str = ""
    team_id: str = ""
    key_id: str = ""
    key: Secret | None = None
    cert_file: Path | None = None
    cert_key_file: Path | None = None
    cert_passphrase: Secret | None = None
    environment: Literal["production", "sandbox"] = "production"
    gateway: str = ""
    ca_file: Path | None = None
    connections: int = 2
    streams: int = 500
    client: Literal["fanout", "aioapns"] = "fanout"
    request_timeout: float = 15.0
    proxy: Secret | None = None

    def __post_init__(self) -> None:
        refuse(self._problems())

    def _problems(self) -> Iterator[str]:
        ready = self.proxy is None or self.proxy.at_hand  # one in a file is looked at when the transport is opened
        proxied = problem_of(lambda: self.egress) if ready else ""
        if proxied:
            yield proxied
        if self.key is None and self.cert_file is None:
            yield (
                "key is missing: set key_file to the AuthKey_….p8 file from Apple's developer site "
                "(with key_id and team_id), or cert_file to a push certificate."
            )
        if self.key is not None and self.cert_file is not None:
            yield "key and cert_file are both set: keep the one that this app authenticates with."
        if self.key is not None:
            yield from self._token_problems(self.key)
        elif self.team_id or self.key_id:
            yield "team_id and key_id belong to a .p8 key: remove them, or set key_file."
        if self.cert_key_file is not None and self.cert_file is None:
            yield "cert_key_file is set without cert_file: set both, or neither."
        if self.cert_passphrase is not None and self.cert_file is None:
            yield "cert_passphrase is set without cert_file: take it out, or set cert_file."
        if self.ca_file is not None and not self.ca_file.is_file():
            yield f"ca_file names no file ({self.ca_file}): put the file there or correct the path."
        if self.topic and not _TOPIC.fullmatch(self.topic):
            yield f"topic is {self.topic!r}: write the app's bundle id, such as com.example.app."
        if self.environment not in GATEWAYS:
            yield f"environment is {self.environment!r}: write production or sandbox."
        if self.gateway and not _GATEWAY.fullmatch(self.gateway):
            yield f"gateway is {self.gateway!r}: write https://HOST or https://HOST:PORT, without a path."
        elif ready and not proxied and self.environment in GATEWAYS and (unfit := problem_of(self.check_client)):
            yield unfit
        if self.client not in ("fanout", "aioapns"):
            yield f"client is {self.client!r}: write fanout or aioapns."
        for name, most in (("connections", 100), ("streams", 10_000)):
            if not 1 <= getattr(self, name) <= most:
                yield f"{name} is {getattr(self, name)!r}: write a number from 1 to {most}."
        if not 0 < self.request_timeout <= 300:
            yield f"request_timeout is {self.request_timeout!r}: write seconds from above 0 to 300."

    @staticmethod
    def examine(values: Mapping[str, Any]) -> Iterator[str]:
        """The fault of the certificate among these settings, which may be wrong otherwise
        (`TransportPlugin.settings`)."""
        from fanout_apns.certificate import load

        certificate, *more = (values.get(name) for name in ("cert_file", "cert_key_file", "cert_passphrase"))
        if certificate is not None and (problem := problem_of(lambda: load(certificate, *more))):
            yield problem

    def check_client(self) -> None:
        """Raise `ConfigurationError` where the client cannot go through the proxy."""
        if self.client == "aioapns" and self.egress(*place_of_url(self.url)) is not None:
            raise ConfigurationError(
                'client = "aioapns" knows no proxy: leave client out, or write proxy = "direct" where Apple is reached without.'
            )

    @property
    def egress(self) -> Egress:
        """Through which proxy a host is reached."""
        return egress_of(self.proxy, os.environ)

    @property
    def url(self) -> str:
        """The base URL of the gateway in use."""
        return self.gateway or GATEWAYS[self.environment]

    def _token_problems(self, key: Secret) -> Iterator[str]:
        for name, where in (("team_id", "Membership details"), ("key_id", "Keys")):
            value = getattr(self, name)
            if not _ID.fullmatch(value):
                yield (
                    f"{name} is {value!r}: write the 10 capital letters and digits shown on Apple's developer site "
                    f'under "{where}".'
                )
        if not self.topic:
            yield "topic is missing: write the app's bundle id, such as com.example.app."
        if key.at_hand and not _is_p256_key(key.reveal()):  # one in a file is looked at when the transport is opened
            yield (
                f"key{f' ({key.origin})' if key.origin else ''} is no P-256 private key in PEM: "
                "use the AuthKey_….p8 file as Apple gave it, unchanged."
            )


def _is_p256_key(text: str) -> bool:
    """Whether the text has the form of such a key. Looked at here without a crypto library, which takes long to
    import."""
    found = _PEM.fullmatch(text)
    if found is None or found.group(1) != found.group(3):
        return False
    try:
        der = base64.b64decode("".join(found.group(2).split()), validate=True)
    except binascii.Error:
        return False
    return der[:1] == b"\x30" and _P256 in der
