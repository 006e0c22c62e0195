"""Credentials that change while the program runs: whether their files have, and the settings with what stands in them now."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from fanout.config.binding import read_secret
from fanout.core.secret import Secret

__all__ = ["fingerprint", "renewed"]


def fingerprint(settings: Any) -> tuple[tuple[str, int, int, int], ...]:
    """What the file system says of the files that a transport's settings were made from: it differs when one was replaced.

    (path, time of change in nanoseconds, size, inode) of each; a file that is missing counts as empty.
    """
    found = []
    for path in _files(settings):
        try:
            stat = path.stat()
        except OSError:
            found.append((str(path), 0, 0, 0))
        else:
            found.append((str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(found)


def renewed(settings: Any) -> Any:
    """The same settings with their secrets read from their files anew. Raises `ConfigurationError`, and what the settings raise."""
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        return settings
    secrets = {
        field.name: read_secret(Path(value.path), f"The file {value.path}")
        for field in dataclasses.fields(settings)
        if isinstance(value := getattr(settings, field.name), Secret) and value.path
    }
    return dataclasses.replace(settings, **secrets) if secrets else settings


def _files(settings: Any) -> list[Path]:
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        return []
    values = [getattr(settings, field.name) for field in dataclasses.fields(settings)]
    return [
        Path(value.path) if isinstance(value, Secret) else value
        for value in values
        if isinstance(value, Path) or (isinstance(value, Secret) and value.path)
    ]
