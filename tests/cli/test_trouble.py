"""What `fanout status` says while nothing can be stored."""

from __future__ import annotations

from typing import Any

import apsw


def test_a_lock_that_somebody_holds_is_named_and_not_waited_for(shell: Any) -> None:
    shell.register(("alice", "phone"))
    id = shell.ok("send", "--to", "user:alice", "--title", "T")
    assert "storage" not in shell("status").out
    assert {line["storage"] for line in shell("status", "--json").lines} == {"ok"}
    other = apsw.Connection(str(shell.folder / "fanout.db"))
    other.execute("BEGIN IMMEDIATE")
    try:
        assert "keeps the database locked" in shell("status").out
        (app,) = shell("status", "--json").lines
        assert "keeps the database locked" in app["storage"]
        one = shell("status", id)
        assert one.code == 0
        assert id in one.out
        assert "keeps the database locked" in one.err
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert "storage" not in shell("status").out
