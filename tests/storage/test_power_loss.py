"""Power loss: every write and fsync is recorded, and the disk is put back together as it might have been found
afterwards."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from fanout.core.model import Target
from fanout.plugin import StorageContext
from fanout.storage.sqlite import opening
from fanout.storage.sqlite.store import Inline, SqliteStorage
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device, done, lease_all, standing, submission

pytestmark = pytest.mark.anyio

CONTEXT = StorageContext(clock=VirtualClock(T0), chunk=50)
STATES = 120


class Recorder(apsw.VFS):
    """The machine's files, and a log of what was asked of them: (kind, file, offset, data)."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str, int, bytes]] = []
        super().__init__("recorder", "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return RecordedFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self.log.append(("delete", Path(filename).name, 0, b""))


class RecordedFile(apsw.VFSFile):
    def __init__(self, recorder: Recorder, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        self._name = Path(path).name
        self._log = recorder.log
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        self._log.append(("write", self._name, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        self._log.append(("truncate", self._name, newsize, b""))

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._log.append(("sync", self._name, 0, b""))


def found(log: list[tuple[str, str, int, bytes]], rng: random.Random) -> dict[str, bytes]:
    """The files after a power loss at the end of `log`: all that was synced, and of the rest an arbitrary part."""
    last_sync = {name: i for i, (kind, name, _, _) in enumerate(log) if kind == "sync"}
    luck = rng.choice([0.0, 0.5, 1.0])
    files: dict[str, bytearray] = {}
    for i, (kind, name, offset, data) in enumerate(log):
        if kind == "delete":
            files.pop(name, None)
            continue
        if i > last_sync.get(name, -1) and rng.random() >= luck:
            continue
        content = files.setdefault(name, bytearray())
        if kind == "truncate":
            del content[offset:]
        elif kind == "write":
            content.extend(bytes(max(0, offset - len(content))))
            content[offset : offset + len(data)] = data
    return {name: bytes(content) for name, content in files.items()}


async def test_nothing_acknowledged_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    real = apsw.Connection

    class Shim:
        def __getattr__(self, name: str) -> object:
            return self.made if name == "Connection" else getattr(apsw, name)

        def made(self, filename: str, **named: int) -> apsw.Connection:
            return real(filename, vfs="recorder", **named)

    monkeypatch.setattr(opening, "apsw", Shim())
    path = tmp_path / "x.db"
    acknowledged: list[tuple[int, str, int]] = []
    """(length of the log when the answer came, notification, deliveries that had ended)"""
    async with SqliteStorage(str(path), CONTEXT, offload=Inline) as storage:
        assert storage._database is not None
        storage._database._connection.pragma("wal_autocheckpoint", 60)
        await storage.register([device("alice", str(i), tags=["t"]) for i in range(120)], T0)
        for i in range(40):
            sub = submission(Target.user("alice") if i % 2 else Target.topic("t"))
            await storage.put([sub], T0)
            acknowledged.append((len(recorder.log), sub.id, 0))
            await storage.expand("default", "apns", T0, ahead=3)
            for chunk in await lease_all(storage):
                await storage.settle([done(chunk)], T0)
            ended = (await standing(storage, sub.id)).counts["accepted"]
            acknowledged.append((len(recorder.log), sub.id, ended))
    monkeypatch.undo()
    recorder.unregister()
    kinds = [kind for kind, name, _, _ in recorder.log if name == "x.db"]
    assert kinds.count("write") > 50, "the log was moved into the file now and then"

    rng = random.Random(4)
    start = acknowledged[0][0]
    for state in range(STATES):
        end = rng.randrange(start, len(recorder.log) + 1)
        folder = tmp_path / str(state)
        folder.mkdir()
        for name, content in found(recorder.log[:end], rng).items():
            (folder / name).write_bytes(content)
        async with SqliteStorage(str(folder / "x.db"), CONTEXT, offload=Inline) as storage:
            for at, id, ended in acknowledged:
                if at <= end:
                    status = await standing(storage, id)
                    assert status.counts["accepted"] >= ended, "what was settled stays settled"
            # Leases and expansions commit without waiting for the disk: what is lost of them is done again.
            later = T0 + 60
            while await storage.expand("default", "apns", later, ahead=3) or any(
                (await storage.waiting("default", "apns", later))[0]
            ):
                await storage.settle([done(chunk) for chunk in await lease_all(storage, later)], later)
            for at, id, _ in acknowledged:
                if at <= end:
                    status = await standing(storage, id)
                    assert status.counts["accepted"] == 120, "and the rest goes on"
        with closing(apsw.Connection(str(folder / "x.db"))) as connection:
            assert connection.pragma("quick_check", 1) == "ok"
