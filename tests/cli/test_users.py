"""`fanout users erase` and `fanout audit`: forgotten from the shell, and told by whom."""

from __future__ import annotations

from typing import Any


def test_a_user_is_erased_and_the_log_says_by_whom(shell: Any) -> None:
    shell.ok("keys", "add", "--name", "billing", "--role", "send")
    assert shell("users", "erase", "alice-77", "--yes", "--json").lines == [{"endpoints": 0}]
    result = shell("audit", "--json")
    made, erased = result.lines
    assert (made["kind"], erased["kind"]) == ("audit.key.made", "audit.user.erased")
    assert erased["app"] == "default"
    assert erased["data"]["by"] == "shell"
    assert len(erased["data"]["person"]) == 32
    assert "alice-77" not in result.out
    assert [line["id"] for line in shell("audit", "--kind", "user.erased", "--json").lines] == [erased["id"]]
    assert len(shell("audit", "--since", "1h", "--app", "default", "--json").lines) == 2
    assert "audit.user.erased" in shell("audit").out


def test_without_a_user_or_a_word_nothing_is_erased(shell: Any) -> None:
    shell.ok("keys", "add", "--name", "billing", "--role", "send")
    assert shell("users", "erase", "", "--yes").code == 2
    refused = shell("users", "erase", "alice")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert shell("audit", "--kind", "user", "--json").lines == []


def test_a_user_is_exported_to_lines_or_to_a_new_file_and_the_log_says_by_whom(shell: Any) -> None:
    shell.register(("alice", "loft-7"), ("bob", "loft-8"))
    lines = shell("users", "export", "alice").lines
    assert [each["kind"] for each in lines] == ["user", "endpoint", "seen", "audit", "end"]
    assert (lines[1]["address"], lines[-1]["records"]) == ("loft-7", 4)
    file = shell.folder / "alice.ndjson"
    told = shell("users", "export", "alice", "--out", str(file), "--json").lines
    assert told == [{"file": str(file), "records": 6}]
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_bytes().count(b"\n") == 6
    again = shell("users", "export", "alice", "--out", str(file))
    assert (again.code, "--out" in again.err) == (2, True)
    assert file.read_bytes().count(b"\n") == 6
    assert shell("users", "export", "").code == 2
    log = shell("audit", "--kind", "user.exported", "--json").lines
    assert [line["data"]["by"] for line in log] == ["shell", "shell"]


def test_what_the_shell_stops_is_done_by_the_shell(shell: Any) -> None:
    shell.register(("alice", "loft-7"))
    id = shell.ok("send", "--to", "user:alice", "--title", "x")
    for words in (
        ("pause", id),
        ("resume", id),
        ("cancel", id),
        ("pause", "--binding", "pigeon"),
        ("resume", "--binding", "pigeon"),
    ):
        shell.ok(*words)
    log = shell("audit", "--json").lines
    assert [(line["kind"], line["data"]["by"]) for line in log] == [
        (f"audit.{kind}", "shell")
        for kind in (
            "notification.paused",
            "notification.resumed",
            "notification.cancelled",
            "binding.paused",
            "binding.resumed",
        )
    ]
