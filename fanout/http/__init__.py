"""The push HTTP client: HTTP/2 over TLS, made for many small requests to one gateway.

`H2Pool` is the door. Underneath, `connection` moves bytes under asyncio, and `codec` with `inbound`, `states`, `sending`,
`frames`, `hpack_encoder` and `response` is HTTP/2 without I/O; `upkeep` holds the pool's decisions. This package may be
imported by everything above core; it imports core and errors.
"""

from __future__ import annotations

from fanout.http.dial import Resolver
from fanout.http.hpack_encoder import Head, literal
from fanout.http.pool import H2Pool
from fanout.http.response import RequestFailed, Response
from fanout.http.settings import PoolSettings, PoolStats
from fanout.http.tls import client_tls

__all__ = [
    "H2Pool",
    "Head",
    "PoolSettings",
    "PoolStats",
    "RequestFailed",
    "Resolver",
    "Response",
    "client_tls",
    "literal",
]
