"""A new key in a file of its own, and how the configuration names that file."""

from __future__ import annotations

import os
from pathlib import Path

from fanout.errors import UsageError

__all__ = ["from_configuration", "write_new"]


def write_new(file: Path, text: str) -> None:
    """A file that only its owner can read and that was not there before. Raises `UsageError`."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(
            f"--out {file} exists already, and a key is not overwritten, as what is made with it would be lost: name another file."
        ) from None
    except OSError as error:
        raise UsageError(f"--out {file} cannot be made ({error.strerror}): name another file.") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        file.unlink(missing_ok=True)
        raise UsageError(f"--out {file} cannot be written ({error.strerror}): name another file.") from None


def from_configuration(file: Path) -> str:
    """The path as the configuration has to name it: relative paths start at the configuration's own folder."""
    folder = Path(os.environ.get("FANOUT_CONFIG") or "fanout.toml").absolute().parent
    absolute = file.absolute()
    return str(absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute)
