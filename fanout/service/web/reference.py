"""`/docs` and `/redoc`: the API's reference, with scripts and styles of an installed package (fastapi-offline) and of
no other host.

Keys are pasted on these pages, so they load nothing from elsewhere, run nothing that stands in the page itself, and
stand in no frame.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from hashlib import blake2b
from html import escape
from importlib.util import find_spec
from pathlib import Path as File
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request
from starlette.responses import HTMLResponse, Response

from fanout.service.errors import Refused

__all__ = ["PATHS", "page_headers", "router"]

PATHS = ("/docs/",)

_PACKAGE = "fastapi_offline"
_FILES = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "redoc.standalone.js": "text/javascript; charset=utf-8",
}
_SWAGGER = "script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"
# Redoc's search runs in a worker that it makes of a text.
_REDOC = f"{_SWAGGER}; font-src 'self'; worker-src blob:"

router = APIRouter(include_in_schema=False)


def page_headers(policy: str) -> dict[str, str]:
    """The headers of a page that may load the sources of `policy` and no others, and may stand in no frame."""
    return {
        "content-security-policy": f"default-src 'none'; {policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "x-frame-options": "DENY",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }


def _folder() -> File | None:
    """Where the package keeps its files. It is not imported, for it would load FastAPI's own pages as well."""
    spec = find_spec(_PACKAGE)
    return (
        File(next(iter(spec.submodule_search_locations))) / "static"
        if spec and spec.submodule_search_locations
        else None
    )


@cache
def _file(name: str) -> tuple[bytes, str]:
    folder = _folder()
    if folder is None:
        raise Refused(404, "notFound", "The scripts of this page are not installed: install the extra 'service'.")
    content = (folder / name).read_bytes()
    return content, f'"{blake2b(content, digest_size=12).hexdigest()}"'


def _page(request: Request, policy: str, head: str, body: str) -> HTMLResponse:
    if _folder() is None:
        head, body = (
            "",
            "<p>The scripts of this page are not installed: install the extra <code>service</code>. The reference itself is ",
        )
        body += '<a href="openapi.json">openapi.json</a>.</p>'
    title = escape(request.app.title)
    text = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>{head}</head><body>{body}</body></html>\n'
    return HTMLResponse(text, headers=page_headers(policy))


@router.get("/docs")
async def _docs(request: Request) -> HTMLResponse:
    head = '<link rel="stylesheet" href="docs/swagger-ui.css"><script src="docs/swagger-ui-bundle.js"></script>'
    return _page(request, _SWAGGER, head, '<div id="reference"></div><script src="docs/begin.js"></script>')


@router.get("/redoc")
async def _redoc(request: Request) -> HTMLResponse:
    body = '<redoc spec-url="openapi.json"></redoc><script src="docs/redoc.standalone.js"></script>'
    return _page(request, _REDOC, "", body)


@router.get("/docs/begin.js")
async def _begin(request: Request) -> Response:
    ready: Mapping[str, str] = getattr(request.app.state, "ready_tokens", {})
    script = (
        f"const ready = {json.dumps(dict(ready))};\n"
        'const ui = SwaggerUIBundle({\n  url: "openapi.json",\n  dom_id: "#reference",\n  deepLinking: true,\n'
        "  onComplete: () => Object.entries(ready).forEach(([name, token]) => ui.preauthorizeApiKey(name, token)),\n});\n"
    )
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    return Response(script, headers=headers, media_type="text/javascript; charset=utf-8")


@router.get("/docs/{name}")
async def _one(
    name: Annotated[str, Path(max_length=64)], if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    if name not in _FILES:
        raise Refused(404, "notFound", f"There is no such file; there are {', '.join(_FILES)}.")
    content, etag = _file(name)
    headers = {"etag": etag, "cache-control": "no-cache", "x-content-type-options": "nosniff"}
    if if_none_match == etag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=_FILES[name])
