"""`fanout` with `storage = "postgresql://…"`: the commands find the database, share it, and never tell its password."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from tests.cli.conftest import shell as cli_shell  # a fixture

if TYPE_CHECKING:
    from tests.postgres.conftest import Databases

pytestmark = [pytest.mark.external]

shell_of_files = cli_shell


@pytest.fixture
def shell(shell_of_files: Any, databases: Databases) -> Iterator[Any]:
    """The shell of `tests/cli`, whose configuration names an empty PostgreSQL database."""
    name = asyncio.run(databases.lend())
    text = shell_of_files.config.read_text().replace("sqlite:fanout.db", databases.server.url(name))
    shell_of_files.config.write_text(text)
    yield shell_of_files
    asyncio.run(databases.give_back(name))


def test_commands_share_the_database(shell: Any, databases: Databases) -> None:
    told = ""

    def fanout(*words: str, code: int = 0) -> str:
        nonlocal told
        result = shell(*words)
        told += result.out + result.err
        assert result.code == code, result.err
        return str(result.out)

    assert "postgresql://fanout@127.0.0.1" in fanout("doctor")
    lines = [{"user": f"u{i % 50}", "transport": "pigeon", "address": f"p{i}", "tags": ["news"]} for i in range(300)]
    (shell.folder / "in.ndjson").write_bytes(b"\n".join(map(orjson.dumps, lines)))
    assert "300 imported" in fanout("endpoints", "import", "in.ndjson")
    assert fanout("endpoints", "list", "--user", "u7", "--json").count("\n") == 6
    id = fanout("send", "--to", "topic:news", "--title", "Hello").strip()
    assert orjson.loads(fanout("status", id, "--json"))["state"] == "expanding"
    fanout("work", "--drain")
    status = orjson.loads(fanout("status", id, "--json"))
    assert (status["state"], status["counts"]["accepted"]) == ("done", 300)
    shell.register(("alice", "dead1"), ("alice", "phone"))
    assert "gone (Unregistered)" in fanout("send", "--to", "user:alice", "--title", "Hello", "--wait")
    held = fanout("send", "--to", "user:alice", "--title", "Hello").strip()
    fanout("cancel", held)
    assert orjson.loads(fanout("status", held, "--json"))["state"] == "cancelled"
    assert databases.server.password not in told


def test_a_wrong_url_is_a_wrong_configuration(shell: Any, databases: Databases) -> None:
    config = shell.config.read_text()
    good = next(line for line in config.splitlines() if line.startswith("storage"))
    for wrong, text in (
        (good[:-1] + '?pool=none"', "pool='none'"),
        ('storage = "postgresql:fanout"', "postgresql://USER@HOST/DATABASE"),
    ):
        shell.config.write_text(config.replace(good, wrong))
        for words in (("status",), ("doctor",)):
            result = shell(*words)
            assert (result.code, text in result.out + result.err) == (2, True), result
            assert databases.server.password not in result.out + result.err
    shell.config.write_text(config.replace(databases.server.password, "a-wrong-password"))
    result = shell("status")
    assert result.code == 1
    assert "does not let this user in" in result.err
    assert "a-wrong-password" not in result.err
