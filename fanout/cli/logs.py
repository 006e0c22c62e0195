"""Logs of the commands: text for people, or one JSON object a line for machines, always on standard error.

A line of JSON has `time` (ISO 8601, UTC), `level`, `logger` and `message`; of what the call gave as `extra`, only the fields of
`FIELDS`; and after an exception `exception`, its type, with `place`, the innermost lines of code. The text of an exception is left
out, for it may hold what must not be logged; what matters of it is in the message. Lines whose text begins `APP/BINDING:` have
the two as fields besides.

An `event` names what happened, so that an alert need not match words:

    gate.closed     a scope is held back: app, binding, scope, group, waiting, reason, seconds
    gate.opened     and takes deliveries again: app, binding, scope, group
    removals.stopped  a wave of deaths; endpoints stay in the directory: app, binding, reason
    fault           a plugin did what its contract forbids: app, binding, count
    lease.lost      another worker took chunks over: app, binding
    storage.full    results cannot be stored, nothing is sent; storage.room when they can again
    credential.new  a changed credential is in use; credential.bad when it cannot be used: app, binding
    engine.failed   nothing more is done by this process
    command         what a command says for people: a start, an end, what it waits for
"""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Mapping
from enum import StrEnum

import orjson

from fanout.errors import UsageError

__all__ = ["FIELDS", "Format", "JsonFormatter", "configure", "spoken"]

FIELDS = (
    "event",
    "app",
    "binding",
    "scope",
    "group",
    "waiting",
    "reason",
    "seconds",
    "count",
    "worker",
    "notification",
)
"""What an object may have besides the fixed fields. Nothing that names a device or a person."""

_VARIABLE = "FANOUT_LOG_FORMAT"
_LONGEST = 2000
_PLACES = 5
_OF_BINDING = "%s/%s: "
"""How a log call that speaks of one binding begins: its first two arguments are the app and the binding."""


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


class JsonFormatter(logging.Formatter):
    """One JSON object a line, bounded in its keys and in the length of its texts."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its line feed."""
        message = record.getMessage()
        values = _head(record.created, record.levelname, record.name, message)
        if isinstance(record.args, tuple) and len(record.args) >= 2 and str(record.msg).startswith(_OF_BINDING):
            values["app"], values["binding"] = map(str, record.args[:2])
        values |= {name: _bounded(value) for name in FIELDS if (value := record.__dict__.get(name)) is not None}
        if record.exc_info and record.exc_info[0] is not None:
            values["exception"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])[-_PLACES:]
            values["place"] = [f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in frames]
        return orjson.dumps(values, default=str).decode()


_chosen = Format.TEXT


def configure(chosen: Format | None = None, environ: Mapping[str, str] | None = None) -> Format:
    """Send logs to standard error in the chosen format, else in that of FANOUT_LOG_FORMAT, else as text. Raises `UsageError`.

    As text from `warning` on; as JSON with `info` of this package's own loggers too, so that what closes an alert is there.
    """
    global _chosen
    named = (os.environ if environ is None else environ).get(_VARIABLE, "text")
    try:
        _chosen = Format(named) if chosen is None else chosen
    except ValueError:
        raise UsageError(f"{_VARIABLE} is {named!r}: use text or json.") from None
    if _chosen is Format.JSON:
        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter())
        logging.basicConfig(handlers=[handler], level=logging.WARNING)
        logging.getLogger("fanout").setLevel(logging.INFO)
    else:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    return _chosen


def spoken(text: str, level: str = "info") -> str:
    """What a command says on standard error: the text, or the same as a line of JSON."""
    if _chosen is Format.TEXT:
        return text
    values = _head(time.time(), level, "fanout.cli", text) | {"event": "command"}
    return orjson.dumps(values).decode()


def _head(moment: float, level: str, logger: str, message: str) -> dict[str, object]:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
    return {
        "time": f"{seconds}.{int(moment % 1 * 1000):03d}Z",
        "level": level.lower(),
        "logger": logger,
        "message": message[:_LONGEST],
    }


def _bounded(value: object) -> object:
    return value if isinstance(value, (bool, int, float)) else str(value)[:200]
