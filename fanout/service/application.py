"""FastAPI's application, with a short way to the hot routes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from fanout.service.front import Front

__all__ = ["Application"]

_AGAIN = 1.0
"""Seconds between two looks whether something stands around the service."""


class Application(FastAPI):
    """Hands the requests that `Front` answers by itself straight to it: the layers of Starlette and FastAPI around it
    do nothing for them, and cost as much as all checks of the caller.

    Not so where a host or a tool has put something around the service: a middleware of its own, telemetry that is
    configured, or a method that is replaced. Then each request passes it.
    """

    _front: Front | None = None
    _built: ASGIApp | None = None
    _bare = False
    _look_at = 0.0

    def add_front(self, **options: Any) -> None:
        """Put the middleware `Front` into the app. To be called once, before any other `add_middleware`."""

        def made(app: ASGIApp) -> Front:  # by this name from older versions of Starlette
            self._front = Front(app, **options)
            return self._front

        self.add_middleware(made)

    def build_middleware_stack(self) -> ASGIApp:
        """See `FastAPI`."""
        self._built = super().build_middleware_stack()
        return self._built

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        front = self._front
        if front is not None and scope["type"] == "http" and front.answers(scope) and self._is_bare(front):
            await front(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def _is_bare(self, front: Front) -> bool:
        now = front.service.clock.monotonic()
        if now >= self._look_at:
            self._look_at = now + _AGAIN
            telemetry = getattr(self, "_native_telemetry", None)
            self._bare = (
                len(self.user_middleware) == 1
                and not self.root_path
                and not (telemetry is not None and telemetry.enabled())
                and self.middleware_stack is self._built
                and (FastAPI.__call__.__module__, Starlette.__call__.__module__) == _OWN
            )
        return self._bare


_OWN = ("fastapi.applications", "starlette.applications")
"""The modules of `__call__` where no tool has replaced it."""
