"""Logs of the commands: text for people, or one JSON object a line for machines, always on standard error.

A line of JSON has `time` (ISO 8601, UTC), `level`, `logger` and `message`; then `event`, where the event has a name in
`EVENTS`, with the fields that belong to it; of a call's `extra`, only the fields of `FIELDS`; and after an exception
`exception`, its type, with `place`, the innermost lines of code. The text of an exception is left out, for it may hold
secrets and addresses; its essential facts are in the message. The text of a command for people is the event `command`.
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
    "event", "app", "binding", "scope", "group", "waiting", "reason", "seconds", "count", "worker", "notification",
)  # fmt: skip
"""The fields that an object may have besides the fixed ones. Nothing that names a device or a person."""

_VARIABLE = "FANOUT_LOG_FORMAT"
_LONGEST = 2000
_PLACES = 5
_OF_BINDING = "%s/%s: "
"""How a log call that speaks of one binding begins: its first two arguments are the app and the binding."""
_OF_GATE = ("app", "binding", "scope", "group")

EVENTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "%s/%s: gate of %s %s closed for %.1f s: %s": ("gate.closed", (*_OF_GATE, "seconds", "reason")),
    "%s/%s: gate of %s %s opened": ("gate.opened", _OF_GATE),
    "Others are not told of a gate of %s/%s: %s": ("gate.untold", ("app", "binding", "reason")),
    "%s/%s: %s (fault %d)\n%s": ("fault", ("app", "binding", "reason", "count")),
    "%s/%s: new settings or a new credential are in use": ("credential.new", ("app", "binding")),
    "A changed configuration is in use: %s.": ("configuration.taken", ("reason",)),
    "The changed configuration is refused, and the one in use stays: %s": ("configuration.refused", ("reason",)),
    "The configuration has changed in %s: that is taken at the next start.": ("configuration.late", ("reason",)),
    "The configuration in use is that of its files again.": ("configuration.good", ()),
    "A lease of %s/%s was taken over: its results are dropped.": ("lease.lost", ("app", "binding")),
    "The worker %s has not been heard of for %g s: its leases are taken over.": ("worker.lost", ("worker", "seconds")),
    "The disk is full: sending stops until results can be stored.": ("storage.full", ()),
    "Sending stops: storage has not answered for a second.": ("storage.silent", ()),
    "Sending stops until results can be stored: %s": ("storage.away", ("reason",)),
    "Results can be stored again: sending goes on.": ("storage.room", ()),
    "Work waits for the database: %s": ("storage.waits", ("reason",)),
    "The database does its work again.": ("storage.works", ()),
    "The engine has failed and does nothing more: %s": ("engine.failed", ()),
}
"""The engine's log messages, by the text of the call: the event's name, and the fields that the first arguments are. By
it an alert need not match words, and the engine need not say everything twice."""


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


class JsonFormatter(logging.Formatter):
    """One JSON object a line, bounded in its keys and in the length of its texts."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its line feed."""
        message = record.getMessage()
        values = _head(record.created, record.levelname, record.name, message)
        arguments = record.args if isinstance(record.args, tuple) else ()
        if known := EVENTS.get(str(record.msg)):
            values["event"] = known[0]
            values |= {name: _bounded(value) for name, value in zip(known[1], arguments, strict=False)}
        elif str(record.msg).startswith(_OF_BINDING):
            values["app"], values["binding"] = map(_bounded, arguments[:2])
        values |= {name: _bounded(value) for name in FIELDS if (value := record.__dict__.get(name)) is not None}
        if record.exc_info and record.exc_info[0] is not None:
            values["exception"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])[-_PLACES:]
            values["place"] = [f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in frames]
        return orjson.dumps(values, default=str).decode()


_chosen = Format.TEXT


def configure(chosen: Format | None = None, environ: Mapping[str, str] | None = None) -> Format:
    """Send logs to standard error in the chosen format, else in that of FANOUT_LOG_FORMAT, else as text. Raises
    `UsageError`.

    As text from `warning` on; as JSON with `info` of this package's own loggers too, so that the lines that close an
    alert are there.
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
    """One message of a command on standard error: the text, or the same as a line of JSON."""
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
