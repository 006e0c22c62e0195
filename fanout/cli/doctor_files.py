"""Files of secrets that others on the machine can read: the warnings of `fanout doctor`."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fanout.core.secret import Secret

__all__ = ["exposed"]


def exposed(settings: Any, configuration: str) -> dict[str, str]:
    """The files with secrets of these settings that any user of the machine can read or change, each with its remedy.

    `configuration` is the path of the file that the settings were read from, or ""; it counts where a secret stands in
    it.
    """
    secrets = list(_secrets(settings))
    found = {}
    for path in sorted({*(each.path for each in secrets if each.path), *_holding(configuration, secrets)}):
        try:
            mode = os.stat(path).st_mode
        except OSError:
            continue  # an unreadable file is reported by the setting that needs it
        if stat.S_ISREG(mode) and mode & (stat.S_IROTH | stat.S_IWOTH):
            what = "read" if mode & stat.S_IROTH else "change"
            found[path] = f"Any user of this machine can {what} it, and it holds a secret: chmod 0600."
    return found


def _holding(configuration: str, secrets: Iterable[Secret]) -> list[str]:
    try:
        text = Path(configuration).read_text(encoding="utf-8") if configuration else ""
    except (OSError, UnicodeError):
        return []
    return (
        [configuration]
        if any(not each.path and each.at_hand and each.reveal() in text for each in secrets) and text
        else []
    )


def _secrets(value: Any) -> Iterator[Secret]:
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, Mapping):
        yield from _secrets(tuple(value.values()))
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _secrets(each)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from _secrets(tuple(getattr(value, field.name) for field in dataclasses.fields(value)))
