"""A simulator as a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fanout.testing.simulator import read_ledger
from fanout.testing.simulator.__main__ import main


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-m", "fanout.testing.simulator", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def ask(process: subprocess.Popen[str], line: str) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def test_it_says_where_it_is_and_obeys(tmp_path: Path) -> None:
    with running("apns", "--ca-dir", str(tmp_path)) as (process, ready):
        assert ready["name"] == "apns"
        assert ready["pid"] == process.pid
        assert ready["settings"]["gateway"] == ready["url"]
        assert Path(ready["ca_file"]).parent == tmp_path
        assert ask(process, "counters")["accepted"] == 0
        assert ask(process, 'faults {"stall": 0.5}') == {"faults": "set"}
        assert "stal" in ask(process, 'faults {"stal": 0.5}')["error"]
        assert "no such command" in ask(process, "dance")["error"]
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


def test_it_ends_on_sigterm_and_keeps_its_credentials(tmp_path: Path) -> None:
    keys = []
    for _ in range(2):
        with running("apns", "--ca-dir", str(tmp_path), "--lean") as (process, ready):
            keys.append((ready["settings"]["key"], Path(ready["ca_file"]).read_text()))
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    assert keys[0] == keys[1]


def test_options_reach_the_simulator(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    options = json.dumps({"topic": "org.example.other"})
    with running("apns", "--options", options, "--ledger", str(ledger)) as (_, ready):
        assert ready["settings"]["topic"] == "org.example.other"
    assert list(read_ledger(ledger)) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "there are"),
        (["apns", "--faults", "{"], "cannot start"),
        (["apns", "--faults", '{"reset": 2}'], "more than 1"),
        (["apns", "--options", '{"colour": 1}'], "colour"),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
