"""The push HTTP client: HTTP/2 over TLS, made for many small requests to one gateway.

`H2Pool` is the entry. Underneath, `connection` moves bytes under asyncio (`reading`: in slices), and `codec` with
`inbound`, `states`, `sending`, `frames`, `hpack_encoder` and `response` is HTTP/2 without I/O; `upkeep` holds the
pool's decisions, `waiting` the requests that wait for a connection, `answers` the results of runs, and `retiring` the
connections that are replaced. `Http1Client` does the same over HTTP/1.1 (`http1_session` holds its decisions,
`http1_connection` the connections to a host, `http1_parser` reads answers). Both connect by `dial` (`race`: attempts
overlap; `proxy`: the tunnel) and read by `buffers`. `HostGuard` and `GuardedResolver` judge addresses that clients
supplied, and `TokenSource` with `fetch_token` keeps OAuth tokens. Every package above core may import this one; it
imports core and errors.
"""

from __future__ import annotations

from fanout.http.answers import Answers, RunAnswers
from fanout.http.buffers import Forwarding
from fanout.http.codec import Requests
from fanout.http.dial import Resolver
from fanout.http.guard import GuardedUrl, HostGuard, HostRefused
from fanout.http.guard_resolver import GuardedResolver, NotPublic
from fanout.http.hpack_encoder import Head, literal
from fanout.http.http1 import Http1Client
from fanout.http.http1_values import Http1Settings
from fanout.http.oauth import fetch_token, read_token
from fanout.http.pool import H2Pool
from fanout.http.response import RequestFailed, Response
from fanout.http.settings import PoolSettings, PoolStats
from fanout.http.tls import client_tls
from fanout.http.tokens import Fetched, Token, TokenError, TokenSource
from fanout.http.unanswered import unanswered

__all__ = [
    "Answers",
    "Fetched",
    "Forwarding",
    "GuardedResolver",
    "GuardedUrl",
    "H2Pool",
    "Head",
    "HostGuard",
    "HostRefused",
    "Http1Client",
    "Http1Settings",
    "NotPublic",
    "PoolSettings",
    "PoolStats",
    "RequestFailed",
    "Requests",
    "Resolver",
    "Response",
    "RunAnswers",
    "Token",
    "TokenError",
    "TokenSource",
    "client_tls",
    "fetch_token",
    "literal",
    "read_token",
    "unanswered",
]
