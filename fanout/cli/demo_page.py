"""The page of `fanout demo`: the messages of the demo enter the feed of the user who is shown, and her page shows that
feed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import typer

from fanout.bootstrap import Parts
from fanout.cli.gateways import toml_value
from fanout.cli.shell import quoted, this_program
from fanout.core.model import Notification
from fanout.engine import Engine, Receipt
from fanout.service.auth import UserKey, user_token

if TYPE_CHECKING:
    from fanout.service.feed import FeedService

__all__ = ["DemoPage", "key_table", "opened_page"]

_APP = "default"
_LIFE = 86_400.0
_HOST = "127.0.0.1"
_EXTRA = ("fastapi", "uvicorn", "httptools")


def key_table(key: UserKey) -> str:
    """The configuration's part that makes tokens signed with `key` good."""
    lines = {"id": key.id, "secret": key.secret.reveal(), "app": _APP}
    return "\n".join(
        ["", "[[service.user_keys]]", *(f"{name} = {toml_value(value)}" for name, value in lines.items()), ""]
    )


@dataclass(frozen=True, slots=True)
class DemoPage:
    """The feed over the demo's engine, and the values that serving it needs."""

    made: Parts
    feed: FeedService
    user: str
    key: UserKey

    async def post(self, notification: Notification, target: str) -> Receipt:
        """Push it and enter it into the feed of `target`, for all of them once."""
        from fanout.service.feed.plan import NewItem

        item = NewItem(content={"title": notification.title, "body": notification.body})
        return (await self.feed.post(_APP, target, item, notification)).receipt

    def tell(self, config: Path) -> None:
        """Say where the page is, and by which command it is served there."""
        port = _free_port()
        words = [*this_program(), "serve", "--config", str(config), "--port", str(port)]
        typer.echo(
            f"\nA page that shows it: {self._url(f'http://{_HOST}:{port}')}\n  once it is served: {quoted(words)}"
        )

    async def serve(self, engine: Engine) -> None:
        """Serve the page until told to end."""
        from fanout.service.app import create_app
        from fanout.service.server import serving

        app = create_app(engine, self.made.settings, clock=self.made.clock)
        async with (
            app.state.service as service,
            serving(app, _HOST, 0, service.limits, proxies=service.edge.proxies) as url,
        ):
            typer.echo(f"\nA page that shows it: {self._url(url)}\nCtrl-C ends it, and the gateways.")
            try:
                await engine.failed()
            except asyncio.CancelledError:
                # The demo itself is over, so that being told to end is a good end. `execute` cancels, once.
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
    # Looked for and not imported: FastAPI takes a second, and is needed only where the page is served.
    if not all(find_spec(name) for name in _EXTRA):
        typer.echo(
            "The page that shows a feed is left out: it needs the extra 'service' (from a checkout: pip install '.[service]')."
        )
        yield None
        return
    from fanout.service.feed import FeedService

    async with FeedService(engine, made.settings, clock=made.clock) as feed:
        yield DemoPage(made, feed, user, key)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
