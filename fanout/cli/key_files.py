"""A new key, or an export, in a file of its own, and how the configuration names that file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fanout.errors import UsageError

__all__ = ["configuration_file", "from_configuration", "new_file", "write_new"]


def write_new(file: Path, text: str, mode: int = 0o600, *, flag: str = "--out") -> None:
    """A file that only its owner can read, unless `mode` says otherwise, and that was not there before.

    Raises `UsageError`, which begins with the option that names the file.
    """
    taken = "exists already, and a key is not overwritten, as what is made with it would be lost"
    with new_file(file, mode, flag=flag, taken=taken) as stream:
        stream.write(text.encode())


@contextmanager
def new_file(file: Path, mode: int = 0o600, *, flag: str = "--out", taken: str = "") -> Iterator[BinaryIO]:
    """A new file, on the disk in whole when the `with` ends, and taken away where that ends by an error.

    Raises `UsageError`, which names `flag`, for one that cannot be made or written; `taken` is its text for one that is
    there.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        problem = (taken if isinstance(error, FileExistsError) else "") or f"cannot be made ({error.strerror})"
        raise UsageError(f"{flag} {file} {problem}: name another file.") from None
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException as error:
        file.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UsageError(f"{flag} {file} cannot be written ({error.strerror}): name another file.") from None
        raise


def configuration_file(config: Path | None = None) -> Path:
    """Where the configuration is, or will be: `config`, else the path in FANOUT_CONFIG, else ./fanout.toml."""
    return Path(config or os.environ.get("FANOUT_CONFIG") or "fanout.toml").absolute()


def from_configuration(file: Path, config: Path | None = None) -> str:
    """The path as the configuration has to name it: relative paths start at the configuration's own folder."""
    folder = configuration_file(config).parent
    absolute = file.absolute()
    named = str(absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute)
    return f"./{named}" if named.startswith("~") else named  # a ~ that leads a path is a user's home there
