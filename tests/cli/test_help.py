"""What the shell says of itself, completion for three shells, and what a dry run understood."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer

from fanout.cli.commands import COMMANDS, app


def _commands() -> list[list[str]]:
    root: Any = typer.main.get_command(app)
    found: list[list[str]] = [[]]
    for name, command in root.commands.items():
        found.append([name])
        found += [[name, inner] for inner in getattr(command, "commands", {})]
    return found


@pytest.mark.parametrize("words", _commands(), ids=lambda words: " ".join(words) or "fanout")
def test_help_is_plain_text(shell: Any, words: list[str]) -> None:
    text = shell.ok(*words, "--help")
    assert "<bool>" not in text
    assert "Usage:" in text


def test_a_table_is_named_in_help(shell: Any) -> None:
    assert "[service]" in shell.ok("serve", "--help")


def test_help_lists_each_command_by_its_own_first_sentence() -> None:
    root: Any = typer.main.get_command(app)
    for name, line in COMMANDS.items():
        written = " ".join(root.commands[name].help.partition("\n\n")[0].split())
        assert written == line or written.startswith(f"{line} "), name


def test_version_and_help_import_no_engine() -> None:
    program = "import sys, atexit; atexit.register(lambda: print('\\n', *sys.modules, file=sys.stderr)); from fanout.cli import main; main()"
    for word in ("--version", "--help"):
        found = subprocess.run([sys.executable, "-c", program, word], capture_output=True, text=True, timeout=60)
        assert found.returncode == 0, found.stderr
        loaded = set(found.stderr.split())
        assert "fanout.cli.commands" in loaded
        assert not loaded & {"fanout.bootstrap", "fanout.engine", "fanout.config", "pydantic", "asyncio"}, word


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion(name: str) -> None:
    def fanout(**environ: str) -> str:
        words = [sys.executable, "-c", "import sys; sys.argv[0] = 'fanout'; from fanout.cli import main; main()"]
        found = subprocess.run(words, env={**os.environ, **environ}, capture_output=True, text=True, timeout=60)
        assert found.returncode == 0, found.stderr
        return found.stdout

    assert "_FANOUT_COMPLETE" in fanout(_FANOUT_COMPLETE=f"source_{name}")
    asked = {"COMP_WORDS": "fanout exp", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "fanout exp"}
    asked |= {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    assert "explain" in fanout(_FANOUT_COMPLETE=f"complete_{name}", **asked)


def test_a_dry_run_says_which_instant_it_understood(shell: Any) -> None:
    shell.register(("alice", "phone"))
    at = (datetime.now(UTC) + timedelta(days=2)).replace(microsecond=0)
    zoned = at.astimezone(tz=None).isoformat()
    words = ("send", "--to", "user:alice", "--title", "Hi", "--dry-run", "--at", zoned)

    assert f"due {at:%Y-%m-%d %H:%M:%S} UTC" in shell.ok(*words)
    (line,) = shell(*words, "--json").lines
    assert line["due_at"] == at.timestamp()
    (line,) = shell(*words[:-2], "--json").lines
    assert line["due_at"] is None


def test_the_page_of_the_command_line_lists_each_command_as_help_does() -> None:
    page = (Path(__file__).parents[2] / "docs/command-line.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| `fanout (\w+)` \| (.*) \|$", page, re.MULTILINE)) == COMMANDS
