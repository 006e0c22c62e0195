"""The files below SQLite, watched: a VFS whose writes and fsyncs are failpoints, and one that records them for a power
loss."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import apsw

from fanout_kit.faulty.failpoints import reached

__all__ = ["Disk", "Recorder", "Write", "unpowered"]


class Disk(apsw.VFS):
    """The machine's files, with failpoints at `wal.*` and `checkpoint.*`. As long as it exists, SQLite opens files with
    it."""

    def __init__(self, name: str = "faulty") -> None:
        self.syncs = 0
        self.base = apsw.vfs_names()[0]  # the default so far: an empty name would mean this one itself
        super().__init__(name, self.base, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        """A file of SQLite's."""
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        self._part = (
            "wal" if flags[0] & apsw.SQLITE_OPEN_WAL else "checkpoint" if flags[0] & apsw.SQLITE_OPEN_MAIN_DB else ""
        )
        super().__init__(disk.base, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._part:
            self._fail(f"{self._part}.write")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        if self._part:
            self._disk.syncs += 1
            self._fail(f"{self._part}.sync")
        super().xSync(flags)
        if self._part == "wal":
            self._fail("wal.synced")

    def _fail(self, name: str) -> None:
        if reached(name):
            raise apsw.IOError(f"the disk says no at {name}")


class Write(NamedTuple):
    """The calls on a file. `kind` is write, truncate, sync or delete; `size` stands for the offset or the new
    length."""

    kind: str
    name: str
    size: int = 0
    data: bytes = b""


class Recorder(apsw.VFS):
    """The machine's files, and a log of the calls for them. As long as it exists, SQLite opens files with it."""

    def __init__(self, name: str = "recorder") -> None:
        self.log: list[Write] = []
        self.base = apsw.vfs_names()[0]
        super().__init__(name, self.base, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        """A file of SQLite's."""
        return _RecordedFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """A file goes."""
        super().xDelete(filename, syncdir)
        self.log.append(Write("delete", Path(filename).name))


class _RecordedFile(apsw.VFSFile):
    def __init__(self, recorder: Recorder, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        self._name = Path(path).name
        self._log = recorder.log
        super().__init__(recorder.base, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        self._log.append(Write("write", self._name, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        self._log.append(Write("truncate", self._name, newsize))

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._log.append(Write("sync", self._name))


def unpowered(log: Sequence[Write], rng: random.Random) -> dict[str, bytes]:
    """The files as they may be found after the power failed at the end of `log`: all that was synced, and an arbitrary
    part of the rest.

    A write that was not synced may be there whole, up to a sector of 512 bytes, or not at all, in any order.
    """
    synced = {entry.name: i for i, entry in enumerate(log) if entry.kind == "sync"}
    luck = rng.choice((0.0, 0.5, 0.9, 1.0))
    files: dict[str, bytearray] = {}
    for i, entry in enumerate(log):
        if entry.kind == "delete":
            files.pop(entry.name, None)
            continue
        safe = i <= synced.get(entry.name, -1)
        if not safe and rng.random() >= luck:
            continue
        content = files.setdefault(entry.name, bytearray())
        if entry.kind == "truncate":
            del content[entry.size :]
        elif entry.kind == "write":
            data = entry.data
            if not safe and rng.random() < 0.25:
                data = data[: rng.randrange(0, len(data) + 1, 512)]
            content.extend(bytes(max(0, entry.size - len(content))))
            content[entry.size : entry.size + len(data)] = data
    return {name: bytes(content) for name, content in files.items()}
