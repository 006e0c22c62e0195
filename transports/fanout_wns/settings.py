"""The settings of a WNS binding."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fanout.plugin import AllowedHost, Egress, Secret, egress_of, problem_of, refuse

__all__ = ["HOSTS", "WnsSettings"]

HOSTS = ("notify.windows.com",)
"""Where channels live. Microsoft: require this domain and do not look at the subdomain, because it changes ("WNS
overview")."""

_ENTRA = "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token"
_LIVE = "https://login.live.com/accesstoken.srf"

_TENANT = re.compile(r"[A-Za-z0-9-]{36}|(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}")
_CLIENT = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SID = re.compile(r"ms-app://s-1-15-2(?:-[0-9]{1,10}){7}")
_ORIGIN = r"https://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?"
_GATEWAY = re.compile(_ORIGIN)
_TOKEN_URL = re.compile(_ORIGIN + r"/[!-~]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class WnsSettings:
    """One Windows app.

    `auth` is `entra` for apps that use the Windows App SDK (then `tenant_id` and `client_id` are those of the app
    registration), or `live` for packaged apps of Partner Center (then `client_id` is the Package SID,
    `ms-app://s-1-15-2-…`). Channels made one way do not take tokens of the other.

    `allowed_hosts` are the hosts that a channel URL may name (with everything below them), and so the only ones that
    are sent the token. `allow_private` admits loopback and is for tests. `gateway` (a base URL) is connected to in
    place of every channel's host, with the channel's own host and path in the request: a test server. `token_url`
    replaces the token endpoint, `ca_file` is trusted besides the system's authorities. `connections` are kept per host
    at most. With `request_for_status` every answer tells the result of the notification and whether the device is
    connected. Times are in seconds.

    `proxy` is the egress proxy, `http://[USER:PASSWORD@]HOST:PORT`; or "environment" for the values of `HTTPS_PROXY`
    and `NO_PROXY`, or "direct" for none where the configuration has one for all.

    A host that a client supplied is reached through the proxy at an address that was judged here; with `proxy_judges`
    its name is handed over, and it is the proxy that judges whether it may be reached.

    Raises `ConfigurationError` for settings that cannot work.
    """

    client_id: str
    client_secret: Secret
    auth: Literal["entra", "live"] = "entra"
    tenant_id: str = ""
    allowed_hosts: tuple[str | AllowedHost, ...] = HOSTS
    allow_private: bool = False
    gateway: str = ""
    token_url: str = ""
    ca_file: Path | None = None
    connections: int = 64
    request_for_status: bool = False
    request_timeout: float = 15.0
    proxy: Secret | None = None
    proxy_judges: bool = False
    connect_timeout: float = 10.0

    def __post_init__(self) -> None:
        refuse(self._problems())

    def _problems(self) -> Iterator[str]:
        # A file is looked at when the transport is opened.
        if self.proxy is not None and self.proxy.at_hand and (problem := problem_of(lambda: self.egress)):
            yield problem
        if self.auth not in ("entra", "live"):
            yield f"auth is {self.auth!r}: write entra (Windows App SDK) or live (Package SID from Partner Center)."
        if self.auth == "entra":
            yield from self._entra_problems()
        else:
            yield from self._live_problems()
        if self.gateway and not _GATEWAY.fullmatch(self.gateway):
            yield (
                f"gateway is {self.gateway!r}: write https://HOST or https://HOST:PORT of a test server, without a path, "
                "or leave it out to reach WNS itself."
            )
        if self.token_url and not _TOKEN_URL.fullmatch(self.token_url):
            yield f"token_url is {self.token_url!r}: write https://HOST/PATH, or leave it out for Microsoft's."
        for entry in self.allowed_hosts:
            if isinstance(entry, AllowedHost):
                yield from entry.problems()
        if self.ca_file is not None and not self.ca_file.is_file():
            yield f"ca_file names no file ({self.ca_file}): put the PEM file there or correct the path."
        if not 1 <= self.connections <= 1000:
            yield f"connections is {self.connections!r}: write a number from 1 to 1000."
        for name in ("request_timeout", "connect_timeout"):
            if not 0 < getattr(self, name) <= 300:
                yield f"{name} is {getattr(self, name)!r}: write seconds from above 0 to 300."

    @property
    def egress(self) -> Egress:
        """Through which proxy a host is reached."""
        return egress_of(self.proxy, os.environ, named=self.proxy_judges)

    @property
    def token_endpoint(self) -> str:
        """Where access tokens are fetched."""
        return self.token_url or (_ENTRA.format(tenant=self.tenant_id) if self.auth == "entra" else _LIVE)

    def _entra_problems(self) -> Iterator[str]:
        if not _CLIENT.fullmatch(self.client_id):
            remedy = ' (for a Package SID, set auth = "live")' if self.client_id.startswith("ms-app:") else ""
            yield f"client_id is {self.client_id!r}: write the Application (client) ID of the app registration{remedy}."
        if not _TENANT.fullmatch(self.tenant_id):
            yield (
                f"tenant_id is {self.tenant_id!r}: write the Directory (tenant) ID of the app registration, or its domain."
            )

    def _live_problems(self) -> Iterator[str]:
        if not _SID.fullmatch(self.client_id.lower()):
            yield (
                f'client_id is {self.client_id!r}: with auth = "live" write the Package SID from Partner Center, ms-app://s-1-15-2-…'
            )
        if self.tenant_id:
            yield 'tenant_id belongs to auth = "entra": take it out.'
