"""The page of `fanout demo`: the messages of the demo enter the feed of the user who is shown, and her page shows that feed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import typer

from fanout.bootstrap import Parts
from fanout.cli.gateways import toml_value
from fanout.cli.shell import quoted, this_program
from fanout.core.model import Notification
from fanout.engine import Engine, Receipt
from fanout.service.auth import UserKey, user_token

__all__ = ["DemoPage", "key_table", "opened_page"]

_APP = "default"
_LIFE = 86_400.0
_HOST = "127.0.0.1"
_EXTRA = ("fastapi", "uvicorn", "httptools", "starlette")


def key_table(key: UserKey) -> str:
    """The configuration's part that makes tokens signed with `key` good."""
    lines = {"id": key.id, "secret": key.secret.reveal(), "app": _APP}
    return "\n".join(
        ["", "[[service.user_keys]]", *(f"{name} = {toml_value(value)}" for name, value in lines.items()), ""]
    )


@dataclass(frozen=True, slots=True)
class DemoPage:
    """The service over the demo's engine, open and not yet listening."""

    app: Any
    user: str
    key: UserKey

    async def post(self, notification: Notification, target: str) -> Receipt:
        """Push it and enter it into the feed of `target`, for all of them once."""
        from fanout.service.feed.plan import NewItem

        item = NewItem(content={"title": notification.title, "body": notification.body})
        posted = await self.app.state.service.feed.post(_APP, target, item, notification)
        receipt: Receipt = posted.receipt
        return receipt

    def tell(self, config: Path) -> None:
        """Say where the page is, and by which command it is served there."""
        port = _free_port()
        words = [*this_program(), "serve", "--config", str(config), "--port", str(port)]
        typer.echo(
            f"\nA page that shows it: {self._url(f'http://{_HOST}:{port}')}\n  once it is served: {quoted(words)}"
        )

    async def serve(self, engine: Engine) -> None:
        """Serve the page until told to end."""
        from fanout.service.server import serving

        service = self.app.state.service
        async with serving(self.app, _HOST, 0, service.limits) as url:
            typer.echo(f"\nA page that shows it: {self._url(url)}\nCtrl-C ends it, and the gateways.")
            try:
                await engine.failed()
            except asyncio.CancelledError:
                # The demo itself is over, so that being told to end is a good end. It is `execute` that cancels, once.
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
            finally:
                await service.drain()

    def _url(self, service: str) -> str:
        token = user_token(self.key.secret, _APP, self.user, ttl=_LIFE)
        return f"{service}/client/#{urlencode({'token': token, 'user': self.user})}"


@asynccontextmanager
async def opened_page(made: Parts, engine: Engine, user: str, key: UserKey) -> AsyncIterator[DemoPage | None]:
    """The page of `user`; None, and a line that says why, where the extra `service` is not installed."""
    create_app: Any
    try:
        from fanout.service.app import create_app
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        typer.echo(
            "The page that shows a feed is left out: it needs the extra 'service' (from a checkout: pip install '.[service]')."
        )
        yield None
        return
    app = create_app(engine, made.settings, clock=made.clock)
    async with app.state.service:
        yield DemoPage(app, user, key)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
