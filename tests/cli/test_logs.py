"""A line of JSON: its fields, what it leaves out, and how long it may get."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson
import pytest

from fanout.cli import logs
from fanout.errors import UsageError

TOKEN = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0"


def line(
    message: str, *arguments: object, level: int = logging.WARNING, exc_info: Any = None, **extra: object
) -> dict[str, Any]:
    record = logging.getLogger("fanout.work").makeRecord(
        "fanout.work", level, __file__, 1, message, arguments, exc_info, extra=extra
    )
    return dict(orjson.loads(logs.JsonFormatter().format(record)))


def test_the_fixed_fields_and_those_of_the_call() -> None:
    found = line("gate of %s closed", "push", event="gate.closed", app="shop", seconds=1.5, user="alice", address=TOKEN)
    assert list(found) == ["time", "level", "logger", "message", "event", "app", "seconds"]
    assert (found["level"], found["logger"], found["message"]) == ("warning", "fanout.work", "gate of push closed")
    assert (found["event"], found["app"], found["seconds"]) == ("gate.closed", "shop", 1.5)


def test_a_call_about_a_binding_names_it() -> None:
    found = line("%s/%s: %s", "shop", "apns", "A send outlived its deadline.")
    assert (found["app"], found["binding"]) == ("shop", "apns")
    assert "app" not in line("%s and %s", "one", "two")


def test_texts_are_bounded() -> None:
    found = line("x" * 10_000, reason="y" * 10_000)
    assert (len(found["message"]), len(found["reason"])) == (2000, 200)


def test_an_exception_is_named_by_its_type_and_place_alone() -> None:
    try:
        raise KeyError(TOKEN)
    except KeyError:
        found = line("A hook raised.", exc_info=sys.exc_info())
    assert found["exception"] == "KeyError"
    assert found["place"][0].startswith("test_logs.py:")
    assert TOKEN not in str(found)


def test_lines_within_a_message_stay_on_one() -> None:
    record = logging.LogRecord("fanout", logging.ERROR, __file__, 1, "one\ntwo", (), None)
    assert "\n" not in logs.JsonFormatter().format(record)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UsageError, match="FANOUT_LOG_FORMAT is 'xml': use text or json"):
        logs.configure(environ={"FANOUT_LOG_FORMAT": "xml"})
    assert logs.spoken("Hello") == "Hello"


def test_the_events_are_what_the_engine_logs() -> None:
    """Each text is that of a log call, with at least as many arguments as fields; and no call about a gate is
    forgotten."""
    import ast
    from pathlib import Path

    calls: dict[str, int] = {}
    package = Path(__file__).parents[2] / "fanout"
    for file in [*(package / "engine").glob("*.py"), package / "config" / "watch.py"]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            # `_hold` logs what it is given, at once or by a timer.
            if isinstance(node, ast.Call) and ("_log." in ast.unparse(node.func) or "._hold" in ast.unparse(node)):
                for at, argument in enumerate(node.args[:3]):
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        calls[argument.value] = sum(not isinstance(a, ast.Starred) for a in node.args[at + 1 :])
    for text, (event, fields) in logs.EVENTS.items():
        assert calls.get(text, -1) >= len(fields), event
        assert set(fields) <= set(logs.FIELDS)
    assert {text for text in calls if "gate" in text} <= set(logs.EVENTS)


def test_a_known_call_is_an_event() -> None:
    text = "%s/%s: gate of %s %s closed for %.1f s: %s"
    found = line(text, "shop", "apns", "binding", "", 29.96, "InvalidProviderToken", level=logging.ERROR)
    assert {name: found[name] for name in list(found)[4:]} == {
        "event": "gate.closed",
        "app": "shop",
        "binding": "apns",
        "scope": "binding",
        "group": "",
        "seconds": 29.96,
        "reason": "InvalidProviderToken",
    }
