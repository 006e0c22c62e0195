"""The three files of a database: whether they are still the opened files."""

from __future__ import annotations

import os
import time

__all__ = ["Files"]

_SUFFIXES = ("-wal", "-shm")
_EVERY = 1.0
"""Seconds after which the files are looked at one by one, though their folder says that no name in it has changed."""
_TICK = 50_000_000
"""Nanoseconds within which two changes of a folder may have one time: kernels stamp with a clock of a few
milliseconds."""
_NEVER = -1
_Identity = tuple[int, int, bool] | None


class Files:
    """The main file at `location`, and the log of the real file `name` with the index of that log, as they are when the
    database is open.

    SQLite goes on writing to a file whose name is gone, or has been given to another file: no other connection ever
    reads what it writes there (https://sqlite.org/howtocorrupt.html, section 4.3). No file is opened for this: closing
    it would drop all locks of this process (section 2.2 of the same page).
    """

    __slots__ = ("_alone", "_folder", "_known", "_next", "_paths", "_quiet")

    def __init__(self, location: str, name: str) -> None:
        path = os.path.abspath(location)
        self._paths = [path, *(name + suffix for suffix in _SUFFIXES)]
        self._known: list[_Identity] = [_identity(each) for each in self._paths]
        self._folder = os.path.dirname(path)
        self._alone = os.path.dirname(name) == self._folder
        self._quiet = _NEVER
        self._next = 0.0

    @property
    def main(self) -> tuple[int, int] | None:
        """Which file the main one is (device, inode)."""
        return self._known[0] and self._known[0][:2]

    @property
    def log_size(self) -> int:
        """Bytes of the log; 0 where there is none."""
        try:
            return os.stat(self._paths[1]).st_size
        except OSError:
            return 0

    def missing(self) -> str:
        """The path of the first file that is gone, is another file now, or was emptied (a log is at times, by SQLite);
        empty while all are the opened files.

        A folder's time says that no name in it has come, gone or changed: then one look serves for all three, once a
        commit.
        """
        try:
            changed = os.stat(self._folder).st_mtime_ns
        except OSError:
            return self._paths[0]
        if changed == self._quiet and time.monotonic() < self._next:
            return ""
        found = [_identity(each) for each in self._paths]
        for path, known, now in zip(self._paths, self._known, found, strict=True):
            if now != known and not (now and known and now == (*known[:2], True)):
                return path
        self._known = found
        settled = self._alone and abs(time.time_ns() - changed) > _TICK
        self._quiet = changed if settled else _NEVER
        self._next = time.monotonic() + _EVERY
        return ""


def _identity(path: str) -> _Identity:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size > 0 and not path.endswith(_SUFFIXES)
