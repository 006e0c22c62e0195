"""The settings of a Web Push binding."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fanout.plugin import AllowedHost, Egress, Secret, egress_of, problem_of, refuse
from fanout_webpush.address import is_public_key

__all__ = ["VENDOR_HOSTS", "WebPushSettings", "subject_problem"]

VENDOR_HOSTS = (
    "fcm.googleapis.com",
    "push.services.mozilla.com",
    "push.apple.com",
    "notify.windows.com",
)
"""Where Chrome and its kin, Firefox, Safari and Edge have their push services; each name stands for itself and all
names below it."""

_MAILTO = re.compile(r"mailto:[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@(?P<host>[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)")
_HTTPS = re.compile(r"https://(?P<host>[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)(?::\d{1,5})?(?:[/?][!-;=?-~]*)?")
_GATEWAY = re.compile(r"https://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebPushSettings:
    """One VAPID identity. `vapid_private_key` is PEM, or the 32 bytes of the key in base64url; `vapid_subject` says how
    the push services reach you, `mailto:` or `https:`. `vapid_public_key` is the applicationServerKey (87 characters),
    for programs that only submit and may not read the private key: a subscription that does not name its key was made
    with this one.

    `vapid_previous_key` is a key used before: subscriptions made with it stay reachable. `allowed_hosts` are the push
    services that may be contacted (a name stands for its subdomains too); `allow_public_hosts` admits every host whose
    addresses are all public, such as UnifiedPush servers; `allow_private` admits loopback and private networks and is
    for tests. `gateway` (a base URL) is connected to in place of every push service, with the endpoint's own origin and
    path in the request: a test server. `ca_file` is trusted besides the system's authorities.

    Per host there are at most `connections` of HTTP/2 with `streams` each, or `http1_connections` where a host has no
    HTTP/2; at most `max_hosts` hosts have connections at a time. `encryption` chooses the encrypting library.
    `request_timeout` is in seconds.

    `proxy` is the egress proxy, `http://[USER:PASSWORD@]HOST:PORT`; or "environment" for the values of `HTTPS_PROXY`
    and `NO_PROXY`, or "direct" for none where the configuration has one for all.

    A host that a client supplied is reached through the proxy at an address that was judged here; with `proxy_judges`
    its name is handed over, and it is the proxy that judges whether it may be reached.

    Raises `ConfigurationError` for settings that cannot work.
    """

    vapid_private_key: Secret | None = None
    vapid_subject: str
    vapid_public_key: str = ""
    vapid_previous_key: Secret | None = None
    allowed_hosts: tuple[str | AllowedHost, ...] = VENDOR_HOSTS
    allow_public_hosts: bool = False
    allow_private: bool = False
    gateway: str = ""
    ca_file: Path | None = None
    connections: int = 2
    streams: int = 500
    http1_connections: int = 16
    max_hosts: int = 64
    encryption: Literal["fanout", "pywebpush"] = "fanout"
    request_timeout: float = 15.0
    proxy: Secret | None = None
    proxy_judges: bool = False

    def __post_init__(self) -> None:
        refuse(self._problems())

    def _problems(self) -> Iterator[str]:
        # A file is looked at when the transport is opened.
        if self.proxy is not None and self.proxy.at_hand and (problem := problem_of(lambda: self.egress)):
            yield problem
        if self.vapid_private_key is None and not self.vapid_public_key:
            yield (
                "vapid_private_key is missing: set vapid_private_key_file to the file that `fanout keys vapid --out FILE` makes, or for "
                "programs that only submit vapid_public_key."
            )
        if self.vapid_public_key and not is_public_key(self.vapid_public_key):
            yield (
                "vapid_public_key is no P-256 public key in base64url (87 characters): write the applicationServerKey that the page subscribes "
                "with, as `fanout keys vapid` prints it."
            )
        problem = subject_problem(self.vapid_subject)
        if problem:
            yield f"vapid_subject is {self.vapid_subject!r}: {problem}"
        if not self.allowed_hosts and not self.allow_public_hosts:
            yield (
                "allowed_hosts is empty, so that no push service could be reached: leave it out for the four browser vendors."
            )
        if self.gateway and not _GATEWAY.fullmatch(self.gateway):
            yield (
                f"gateway is {self.gateway!r}: write https://HOST or https://HOST:PORT of a test server, without a path, "
                "or leave it out to reach the push services themselves."
            )
        if self.encryption not in ("fanout", "pywebpush"):
            yield f"encryption is {self.encryption!r}: write fanout or pywebpush."
        for entry in self.allowed_hosts:
            if isinstance(entry, AllowedHost):
                yield from entry.problems()
        if self.ca_file is not None and not self.ca_file.is_file():
            yield f"ca_file names no file ({self.ca_file}): put the PEM file there or correct the path."
        limits = (("connections", 100), ("streams", 10_000), ("http1_connections", 1000), ("max_hosts", 10_000))
        for name, most in limits:
            if not 1 <= getattr(self, name) <= most:
                yield f"{name} is {getattr(self, name)!r}: write a number from 1 to {most}."
        if not 0 < self.request_timeout <= 300:
            yield f"request_timeout is {self.request_timeout!r}: write seconds from above 0 to 300."

    @staticmethod
    def examine(values: Mapping[str, Any]) -> Iterator[str]:
        """The fault of the keys among these settings, which may be wrong otherwise (`TransportPlugin.settings`)."""
        from fanout_webpush.vapid import VapidKey  # and with it a library that takes long to import

        for name in ("vapid_private_key", "vapid_previous_key"):
            secret: Secret | None = values.get(name)
            if secret is not None and secret.at_hand and (problem := problem_of(partial(VapidKey.load, secret, name))):
                yield problem

    @property
    def egress(self) -> Egress:
        """Through which proxy a host is reached."""
        return egress_of(self.proxy, os.environ, named=self.proxy_judges)


def subject_problem(subject: str) -> str:
    """Why some push service would refuse this `sub` claim, as a sentence with the remedy; "" where none does.

    Apple is the strictest: it answers 403 BadJwtToken to blanks, angle brackets and localhost, which RFC 8292, section
    2.1, does not forbid and the other vendors take.
    """
    found = _MAILTO.fullmatch(subject) or _HTTPS.fullmatch(subject)
    if found is None:
        return "write mailto:NAME@YOUR.DOMAIN or https://YOUR.DOMAIN/CONTACT, without blanks or angle brackets."
    host = found["host"].lower()
    if host.rpartition(".")[2] in ("localhost", "local", "localdomain") or host.rpartition(".")[2].isdigit():
        return "Apple refuses local names and IP addresses here: use a domain of the public DNS."
    return ""
