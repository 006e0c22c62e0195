"""`send`, `status` and `cancel`: each flag does what it says."""

from __future__ import annotations

import io
import time
from contextlib import redirect_stdout
from typing import Any

import orjson
import pytest

from fanout.cli.progress import Following
from fanout.engine.live import SettledDelivery

STATES = ["pending", "accepted", "gone", "rejected", "expired", "cancelled", "superseded", "dead"]


def status(shell: Any, id: str) -> dict[str, Any]:
    (found,) = shell("status", id, "--json").lines
    return dict(found)


def content(shell: Any, id: str) -> dict[str, Any]:
    """What storage holds of a notification."""
    import asyncio

    import fanout

    async def read() -> dict[str, Any]:
        async with fanout.open(shell.config, role="submit") as engine:
            stored = await engine.storage.notification(id)
            assert stored is not None
            return {**orjson.loads(stored.content), "due_at": stored.due_at, "expires_at": stored.expires_at}

    return asyncio.run(read())


def test_send_prints_the_id_and_status_shows_it(shell: Any) -> None:
    shell.register(("alice", "phone"), ("alice", "tablet"))
    result = shell("send", "--to", "user:alice", "--title", "Hello")
    assert result.code == 0
    assert result.err == ""
    id = result.out.strip()
    found = status(shell, id)
    assert list(found) == [
        "id",
        "state",
        "total",
        "counts",
        "pending_by_reason",
        "attempts",
        "accepted_at",
        "finished_at",
        "oldest_pending_at",
        "eta_s",
    ]
    assert list(found["counts"]) == STATES
    assert (found["id"], found["state"], found["total"], found["counts"]["pending"]) == (id, "running", 2, 2)
    shown = shell.ok("status", id)
    assert id in shown
    assert "pending     2" in shown


def test_every_word_of_the_notification_is_kept(shell: Any) -> None:
    shell.register(("alice", "phone"))
    before = time.time()
    words = ["--title", "T", "--body", "B", "--data", "order=17=x", "--data", "n:=[1,2]", "--ttl", "1h30m"]
    words += ["--lane", "urgent", "--collapse-key", "c", "--idempotency-key", "k", "--at", "+1h"]
    (receipt,) = shell("send", "--to", "user:alice", *words, "--json").lines
    kept = content(shell, receipt["id"])
    assert (kept["title"], kept["body"], kept["data"]) == ("T", "B", {"order": "17=x", "n": [1, 2]})
    assert (kept["lane"], kept["collapse_key"]) == ("urgent", "c")
    assert kept["due_at"] == pytest.approx(before + 3600, abs=60)
    assert kept["expires_at"] - kept["due_at"] == pytest.approx(5400)
    assert status(shell, receipt["id"])["state"] == "scheduled"


def test_an_idempotency_key_is_honoured(shell: Any) -> None:
    shell.register(("alice", "phone"))
    words = ["send", "--to", "user:alice", "--title", "T", "--idempotency-key", "k", "--json"]
    (first,) = shell(*words).lines
    again = shell(*words)
    assert again.lines == [{"id": first["id"], "total": 1, "replayed": True}]
    assert "used before" in again.err
    other = shell("send", "--to", "user:alice", "--title", "U", "--idempotency-key", "k")
    assert other.code == 1
    assert "another request" in other.err
    assert other.out == ""


def test_a_collapse_key_supersedes(shell: Any) -> None:
    shell.register(("alice", "phone"))
    ids = [shell.ok("send", "--to", "user:alice", "--title", t, "--collapse-key", "score") for t in "ab"]
    assert status(shell, ids[0])["counts"]["superseded"] == 1
    assert status(shell, ids[1])["counts"]["pending"] == 1


def test_wait_delivers_and_prints_each_answer(shell: Any) -> None:
    phone, dead, never = shell.register(("alice", "phone"), ("alice", "dead-one"), ("alice", "never"))
    result = shell("send", "--to", "user:alice", "--title", "T", "--wait", "--json")
    assert result.code == 1
    receipt, *answers, final = result.lines
    assert receipt["total"] == 3
    assert sorted((a["endpoint"], a["state"], a["reason"]) for a in answers) == [
        (phone, "accepted", ""),
        (dead, "gone", "Unregistered"),
        (never, "rejected", "BadFeather"),
    ]
    assert (final["state"], final["counts"]["pending"]) == ("done", 0)

    plain = shell("send", "--to", f"endpoint:{phone}", "--title", "T", "--wait")
    assert plain.code == 0
    assert f"endpoint {phone}: accepted" in plain.out


def test_nobody_to_deliver_to_is_said(shell: Any) -> None:
    result = shell("send", "--to", "user:nobody", "--title", "T", "--wait")
    assert result.code == 0
    assert "no active endpoint" in result.err


def test_a_dry_run_counts_and_stores_nothing(shell: Any) -> None:
    shell.register(("alice", "phone"), ("bob", "phone2"))
    (seen,) = shell("send", "--to", "all", "--title", "T", "--dry-run", "--json").lines
    assert seen["endpoints"] == {"pigeon": 2}
    assert seen["total"] == 2
    assert seen["bytes"]["pigeon"] > 20
    assert "2 endpoints; nothing was sent" in shell.ok("send", "--to", "all", "--title", "T", "--dry-run")
    assert nothing_outstanding(shell)


def nothing_outstanding(shell: Any) -> bool:
    import asyncio

    import fanout

    async def read() -> bool:
        async with fanout.open(shell.config, role="submit") as engine:
            return not any((await engine.storage.outstanding()).values())

    return asyncio.run(read())


def test_all_wants_a_yes(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.register(("alice", "phone"))
    refused = shell("send", "--to", "all", "--title", "T")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert "1 endpoints" in refused.err or "all 1" in refused.err
    assert nothing_outstanding(shell)
    sent = shell("send", "--to", "all", "--title", "T", "--yes", "--wait", "--json")
    assert sent.code == 0
    assert sent.lines[-1]["counts"]["accepted"] == 1


def test_cancel(shell: Any) -> None:
    shell.register(("alice", "phone"))
    id = shell.ok("send", "--to", "user:alice", "--title", "T")
    (found,) = shell("cancel", id, "--json").lines
    assert (found["counts"]["cancelled"], found["counts"]["pending"]) == (1, 0)
    assert "cancelled" in shell.ok("cancel", id)
    later = shell.ok("send", "--to", "user:alice", "--title", "T", "--at", "+1h")
    assert "cancelled" in shell.ok("cancel", later)
    assert status(shell, later)["state"] == "cancelled"
    assert shell("work", "--drain").code == 0


@pytest.mark.parametrize("command", ["status", "cancel"])
def test_an_unknown_id(shell: Any, command: str) -> None:
    shell.register()
    for id in ("0192f0c1-2345-7abc-8def-0123456789ab", "nonsense"):
        result = shell(command, id)
        assert result.code == 1
        assert id in result.err
        assert result.out == ""


class Unread(io.StringIO):
    """A pipe that nothing reads any more."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_reader_that_goes_while_answers_come_ends_the_command_and_not_the_hook() -> None:
    """`fanout send --wait | head -n 1`."""
    following = Following(json=True)
    following.follow("n")
    with redirect_stdout(Unread()):
        following.on_settled([SettledDelivery("n", "default", "pigeon", 7, "accepted", "")])
        with pytest.raises(BrokenPipeError):
            following.answered(7, "accepted", "")
