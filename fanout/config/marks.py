"""The files that a configuration names, with a mark of each that differs when its text does."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

from fanout.core.secret import Secret

__all__ = ["IRREGULAR", "Marks", "files_of", "marks_of", "secrets_of"]

Marks: TypeAlias = Mapping[str, str]
"""Path to a digest of its text, or to a word that says why there is none."""

IRREGULAR = "no regular file"
"""The mark of a pipe, a folder or a device."""

_LIMIT = 4 * 1024 * 1024
"""Bytes of a file that its mark covers; the configuration and each credential are smaller."""


def files_of(value: Any) -> frozenset[str]:
    """The files that a part of a configuration was made from or names: of its secrets and paths, however deep they
    stand."""
    found = (leaf.path if isinstance(leaf, Secret) else str(leaf) for leaf in _leaves(value))
    return frozenset(path for path in found if path)


def secrets_of(value: Any) -> Iterator[Secret]:
    """The secrets in a part of a configuration, however deep they stand."""
    return (leaf for leaf in _leaves(value) if isinstance(leaf, Secret))


def _leaves(value: Any) -> Iterator[Secret | Path]:
    match value:
        case Secret() | Path():
            yield value
        case Mapping():
            for each in value.values():
                yield from _leaves(each)
        case tuple() | list() | set() | frozenset():
            for each in value:
                yield from _leaves(each)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            for field in dataclasses.fields(value):
                yield from _leaves(getattr(value, field.name))


def marks_of(paths: Iterable[str]) -> Marks:
    """The mark of each file. Reads them: a time of change and a size stay the same where a file is replaced with its
    times kept."""
    return {path: _mark(path) for path in sorted(paths)}


def _mark(path: str) -> str:
    try:
        # Not blocking, and looked at before it is read: a pipe would wait for a writer, or be emptied.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"unreadable: {type(error).__name__}"
    try:
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode):
            return IRREGULAR
        digest = sha256()
        left = _LIMIT
        while left and (part := os.read(number, min(left, 65_536))):
            digest.update(part)
            left -= len(part)
    except OSError as error:
        return f"unreadable: {type(error).__name__}"
    finally:
        os.close(number)
    return digest.hexdigest() if left else f"{digest.hexdigest()} {found.st_size}"
