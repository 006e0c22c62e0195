"""The tunnel through an egress proxy (HTTP CONNECT, RFC 9110, section 9.3.6)."""

from __future__ import annotations

import asyncio
import re
import socket

from fanout.core.proxy import Proxy

__all__ = ["ProxyFailed", "tunnel"]

_MOST_HEAD = 16_384
"""Bytes of the proxy's answer that are read."""
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_WORDS = {
    403: "it refuses this destination: allow it in the proxy's rules",
    407: "it asks for credentials: write http://USER:PASSWORD@HOST:PORT",
}
_ASKS = (401, 407)
"""tinyproxy 1.11 answers 401 to wrong credentials."""
_REFUSED = (
    "it asks for credentials and does not take those that it is given: correct USER:PASSWORD (only Basic is known here)"
)


class ProxyFailed(Exception):
    """The proxy made no tunnel. The text is a sentence for people, without credentials."""


async def tunnel(sock: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Have the proxy at the other end of `sock` connect to `host` and `port`. Raises `ProxyFailed`, or `OSError`.

    Nothing but the proxy's answer is read: the peer behind it speaks TLS, where the client speaks first.
    """
    loop = asyncio.get_running_loop()
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.credentials:
        lines.append(f"Proxy-Authorization: {proxy.credentials}")
    await loop.sock_sendall(sock, ("\r\n".join(lines) + "\r\n\r\n").encode())
    head = b""
    while not (end := _end_of(head)):
        if len(head) > _MOST_HEAD:
            raise ProxyFailed(f"the proxy {proxy.authority} answered CONNECT without end")
        piece = await loop.sock_recv(sock, 4096)
        if not piece:
            raise ProxyFailed(f"the proxy {proxy.authority} hung up on CONNECT")
        head += piece
    found = _STATUS.match(head)
    if found is None:
        raise ProxyFailed(f"the proxy {proxy.authority} does not speak HTTP/1.1")
    status = int(found[1])
    if not 200 <= status < 300:
        words = _REFUSED if status in _ASKS and proxy.credentials else _WORDS.get(status, "see its log")
        raise ProxyFailed(f"the proxy {proxy.authority} answered CONNECT with {status}; {words}")
    if len(head) > end:
        raise ProxyFailed(f"the proxy {proxy.authority} said more than an answer to CONNECT")


def _end_of(head: bytes) -> int:
    """Where the head of an answer ends; 0 if it has not."""
    for mark in (b"\r\n\r\n", b"\n\n"):
        at = head.find(mark)
        if at >= 0:
            return at + len(mark)
    return 0
