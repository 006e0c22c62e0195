"""The examples of docs/transactions.md that need a PostgreSQL server run as they stand: FastAPI with SQLAlchemy, and
Django."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import fanout
from tests.contract.pages import EXAMPLES
from tests.contract.test_readme import install
from tests.postgres.conftest import Databases

pytestmark = [pytest.mark.anyio, pytest.mark.external]

_SHOP = """
CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, shipped timestamptz);
INSERT INTO orders VALUES (17, 'alice'), (18, 'bob');
"""


@dataclass
class Shop:
    """A folder with a configuration, and the database that it and the shop share."""

    folder: Path
    url: str

    @property
    def config(self) -> str:
        return str(self.folder / "fanout.toml")

    def run(self, code: str) -> str:
        (self.folder / "shop.py").write_text(code)
        environ = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "DATABASE_URL": self.url.replace("postgresql:", "postgresql+asyncpg:"),
        }
        found = subprocess.run(
            [sys.executable, "-W", "error", "shop.py"],
            cwd=self.folder,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert (found.returncode, found.stderr) == (0, "")
        return found.stdout


@pytest.fixture
async def shop(databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    name = await databases.lend()
    databases.server.sql(_SHOP, name)
    install(
        tmp_path, "pigeon", "example_pigeon", "from fanout.testing.scripted import plugin as make\nplugin = make()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    shop = Shop(tmp_path, databases.server.url(name))
    (tmp_path / "fanout.toml").write_text(f'storage = "{shop.url}"\n[apps.default.transports.pigeon]\n')
    async with fanout.open(shop.config, role="submit") as engine:
        for user in ("alice", "bob"):
            await engine.endpoints.register(user=user, binding="pigeon", address=f"phone-of-{user}")
    yield shop
    databases.server.sql("DROP TABLE orders", name)
    await databases.give_back(name)


async def test_fastapi_with_sqlalchemy(shop: Shop) -> None:
    drive = """
import asyncio, json

async def post(order):
    sent = []
    path = f"/orders/{order}/shipped"
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"",
             "headers": [], "http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        sent.append(message)
    await app(scope, receive, send)
    return json.loads(sent[1]["body"])

async def main():
    async with app.router.lifespan_context(app):
        id = (await post(17))["notification"]
        status = await app.state.push.wait(id, 60)
        print(status.state, status.counts["accepted"])
        async with database.begin() as connection:
            await connection.execute(text("ALTER TABLE orders ADD CHECK (id <> 18 OR shipped IS NULL)"))
        try:
            await post(18)
        except Exception as error:
            print(type(error).__name__)
        async with AsyncSession(database) as session:
            receipt = await app.state.push.send(fanout.Notification(title="never"), "user:alice", connection=session)
            await session.rollback()
        try:
            await receipt.status()
        except fanout.NotFound:
            print("not found")
        print(await app.state.push.storage.outstanding())

asyncio.run(main())
"""
    said = await asyncio.to_thread(shop.run, EXAMPLES["transaction_fastapi"] + drive)
    assert said.splitlines() == ["done 1", "IntegrityError", "not found", "{}"]


async def test_django(shop: Shop) -> None:
    """One file: settings, the view, and a test client that calls it. A worker of this process sends what was
    committed."""
    settings = f"""
import django
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

parts = conninfo_to_dict({shop.url!r})
settings.configure(
    ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x", USE_TZ=True,
    DATABASES={{"default": {{
        "ENGINE": "django.db.backends.postgresql", "NAME": parts["dbname"], "USER": parts["user"], "PASSWORD": parts["password"],
        "HOST": parts["host"], "PORT": parts["port"],
    }}}},
)
django.setup()
"""
    drive = """
import sys
from django.test import Client
from django.urls import path

urlpatterns = [path("orders/<int:order>/shipped", shipped)]
client = Client(raise_request_exception=False)
print(client.post("/orders/17/shipped").json()["notification"])
with connection.cursor() as cursor:
    cursor.execute("ALTER TABLE orders ADD CONSTRAINT late UNIQUE (customer) DEFERRABLE INITIALLY DEFERRED")
try:
    with transaction.atomic():
        enqueued = fanout.sync.enqueue(connection, fanout.Notification(title="never"), "user:alice")
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO orders VALUES (19, 'alice')")
except Exception as error:
    print(type(error).__name__)
print(enqueued.id)
assert "fanout.engine" not in sys.modules
connection.close()
"""
    said = await asyncio.to_thread(shop.run, settings + EXAMPLES["transaction_django"] + drive)
    sent, refused, never = said.splitlines()
    assert refused == "IntegrityError"
    async with fanout.open(shop.config) as engine:
        status = await engine.wait(sent, 60)
        assert (status.state, status.counts["accepted"]) == ("done", 1)
        with pytest.raises(fanout.NotFound):
            await engine.status(never)
        assert await engine.storage.outstanding() == {}
