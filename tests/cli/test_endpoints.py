"""`endpoints`: in go addresses, out comes everything but them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from fanout.core.lines import LineSplitter


def test_add_list_show_remove_restore(shell: Any) -> None:
    id = shell.ok("endpoints", "add", "--user", "alice", "--transport", "pigeon", "phone", "--tag", "news")
    (listed,) = shell("endpoints", "list", "--user", "alice", "--json").lines
    assert (str(listed["id"]), listed["user"], listed["transport"], listed["tags"]) == (id, "alice", "pigeon", ["news"])
    (shown,) = shell("endpoints", "show", id, "--json").lines
    assert shown == listed
    assert "alice" in shell.ok("endpoints", "show", id)
    assert shell.ok("endpoints", "remove", id) == "1 of 1 removed"
    assert shell("endpoints", "list").err.strip() == "No endpoint matches."
    assert "removed" in shell.ok("endpoints", "list", "--state", "any")
    assert shell("endpoints", "restore", id, "--json").lines == [{"restored": 1, "asked": 1}]
    assert "news" in shell.ok("endpoints", "list", "--tag", "news", "--transport", "pigeon")


def test_the_address_is_shown_nowhere(shell: Any) -> None:
    added = shell("endpoints", "add", "--user", "alice", "--transport", "pigeon", "secret-pigeon-hole", "--json")
    id = str(added.lines[0]["id"])
    results = [added, shell("endpoints", "list"), shell("endpoints", "list", "--json"), shell("endpoints", "show", id)]
    results.append(shell("endpoints", "add", "--user", "alice", "--transport", "pigeon", "secret-pigeon-hole###"))
    assert results[-1].code == 2
    assert not any("secret-pigeon" in result.out + result.err for result in results)


def test_what_is_not_there(shell: Any) -> None:
    shell.register()
    result = shell("endpoints", "show", "77")
    assert (result.code, result.out) == (1, "")
    assert "no endpoint 77" in result.err
    result = shell("endpoints", "remove", "77", "78")
    assert (result.code, result.out.strip()) == (1, "0 of 2 removed")
    assert "unknown" in result.err


def test_a_list_ends_at_its_limit_and_says_so(shell: Any) -> None:
    shell.register(*[("alice", f"device-{number}") for number in range(5)])
    result = shell("endpoints", "list", "--limit", "3", "--json")
    assert len(result.lines) == 3
    assert "more than 3" in result.err
    assert len(shell("endpoints", "list", "--limit", "0", "--json").lines) == 5


def line(number: int, **more: Any) -> bytes:
    values = {"user": f"user-{number}", "transport": "pigeon", "address": f"device-{number}", **more}
    return orjson.dumps({key: value for key, value in values.items() if value is not None}) + b"\n"


def test_import_enters_the_good_and_reports_the_bad(shell: Any, tmp_path: Path) -> None:
    file = tmp_path / "devices.ndjson"
    bad = [b"{broken\n", b"[]\n", line(1, address=None), line(2, colour="red"), line(3, address="###hidden###")]
    bad += [line(4, transport="dove"), line(5, app="shop"), line(6, user=""), b'{"a": "' + b"x" * 200_000 + b'"}\n']
    file.write_bytes(b"".join([line(n, tags=["news"]) for n in range(10, 2510)] + bad + [b"\n", line(9).rstrip()]))
    result = shell("endpoints", "import", str(file))
    assert result.code == 1
    assert result.out.strip() == "2,501 imported, 9 bad"
    told = [text for text in result.err.splitlines() if text.startswith("line ")]
    assert [int(text.split()[1].rstrip(":")) for text in told] == list(range(2501, 2510))
    for words in (
        "no JSON",
        "one JSON object",
        "'address' is missing",
        "'colour'",
        "scripted address",
        "'dove'",
        "'shop'",
    ):
        assert any(words in text for text in told), words
    assert "hidden" not in result.err
    assert len(shell("endpoints", "list", "--tag", "news", "--limit", "0", "--json").lines) == 2500

    again = shell("endpoints", "import", str(file), "--json")
    assert again.lines[0]["imported"] == 2501
    assert [error["line"] for error in again.lines[0]["errors"]] == list(range(2501, 2510))


def test_import_of_good_lines_is_done(shell: Any, tmp_path: Path) -> None:
    file = tmp_path / "devices.ndjson"
    file.write_bytes(line(1) + line(2))
    assert shell("endpoints", "import", str(file), "--json").lines == [{"imported": 2, "bad": 0, "errors": []}]
    result = shell("endpoints", "import", str(tmp_path / "absent"))
    assert result.code == 2
    assert "absent cannot be read" in result.err


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_are_split_wherever_the_blocks_end(size: int) -> None:
    text = b"one\n\nthree\r\nfour" + b"x" * 50
    splitter = LineSplitter(65_537)
    found = [part for start in range(0, len(text), size) for part in splitter.feed(text[start : start + size])]
    assert [*found, *splitter.end()] == text.split(b"\n")


def test_a_line_without_end_takes_bounded_memory() -> None:
    splitter = LineSplitter(65_537)
    for _ in range(100):
        assert list(splitter.feed(b"x" * 100_000)) == []
    (kept,) = splitter.feed(b"\n")
    assert len(kept) == 65_537


def test_import_from_a_pipe(shell: Any) -> None:
    async def run() -> tuple[int, bytes, bytes]:
        import sys

        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fanout", "endpoints", "import", "-", "--json"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=shell.folder,
            env=shell.environ,
        )
        out, err = await child.communicate(b"".join(line(number) for number in range(3000)))
        assert child.returncode is not None
        return child.returncode, out, err

    code, out, err = asyncio.run(run())
    assert code == 0, err
    assert orjson.loads(out) == {"imported": 3000, "bad": 0, "errors": []}
