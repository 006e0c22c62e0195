"""The egress proxy of a client, in aiohttp's words."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from fanout.core.proxy import Egress, egress_of
from fanout.core.secret import Secret
from fanout.errors import ConfigurationError, UsageError

__all__ = ["egress_from", "proxied"]


def egress_from(proxy: Secret | str | None) -> Egress:
    """The meaning of the argument `proxy` of a client. Raises `UsageError`, without the proxy's URL in its text."""
    try:
        return egress_of(Secret(proxy) if isinstance(proxy, str) else proxy, os.environ)
    except ConfigurationError as error:
        raise UsageError(str(error)) from None


def proxied(egress: Egress, url: str, headers: dict[str, str]) -> dict[str, Any]:
    """The further arguments for a request to `url` with these `headers`, which are all of its headers, so that it goes
    through the proxy."""
    parts = urlsplit(url)
    proxy = egress(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    if proxy is None:
        return {"headers": headers}
    given: dict[str, Any] = {"proxy": f"http://{proxy.authority}"}
    proxy_headers = {"Proxy-Authorization": proxy.credentials} if proxy.credentials else {}
    if parts.scheme == "https":
        return given | {"proxy_headers": proxy_headers, "headers": headers}  # for CONNECT, and never to the service
    return given | {"headers": headers | proxy_headers}
