"""`/client/`: the ES module and the service worker for web pages, and a page to try them."""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Header, Path
from starlette.responses import Response

from fanout.service.errors import Refused

__all__ = ["PATHS", "router"]

PATHS = ("/client/",)

_TYPES = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "html": "text/html; charset=utf-8"}
_FILES = (
    "fanout.js",
    "caller.js",
    "device.js",
    "items.js",
    "line.js",
    "store.js",
    "worker.js",
    "page.js",
    "page.css",
    "index.html",
)
_PARTS = {"worker.js": ("store.js", "worker.js")}
"""Files that are sent as one: a service worker that another one imports cannot tell where its own files are."""
_POLICY = "default-src 'self'; connect-src 'self' http: https:; img-src 'self' https: data:; style-src 'self'; frame-ancestors 'none'"
_WORKER_POLICY = "default-src 'none'; script-src 'self'; connect-src 'self' http: https:"

router = APIRouter(prefix="/client", tags=["web client"], include_in_schema=False)


@cache
def _file(name: str) -> tuple[bytes, str]:
    folder = files("fanout.service.web")
    content = b"\n".join(folder.joinpath(part).read_bytes() for part in _PARTS.get(name, (name,)))
    return content, f'"{blake2b(content, digest_size=12).hexdigest()}"'


@router.get("/")
async def _index(if_none_match: Annotated[str | None, Header()] = None) -> Response:
    return _answer("index.html", if_none_match)


@router.get("/{name}")
async def _one(
    name: Annotated[str, Path(max_length=64)], if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    if name not in _FILES:
        raise Refused(404, "notFound", f"There is no such file; there are {', '.join(_FILES)}.")
    return _answer(name, if_none_match)


def _answer(name: str, if_none_match: str | None) -> Response:
    content, etag = _file(name)
    headers = {"etag": etag, "cache-control": "no-cache", "x-content-type-options": "nosniff"}
    if name.endswith(".html"):
        headers |= {"content-security-policy": _POLICY, "x-frame-options": "DENY", "referrer-policy": "no-referrer"}
    else:
        # Pages of other sites import the module, and may give the worker any scope of theirs.
        headers |= {"access-control-allow-origin": "*", "service-worker-allowed": "/"}
        if name in _PARTS:
            # A renderer's address that is redirected leads to no other origin's script either.
            headers["content-security-policy"] = _WORKER_POLICY
    if if_none_match == etag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=_TYPES[name.rpartition(".")[2]])
