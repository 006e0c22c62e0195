"""The failpoints of the test kit: what is armed, what is found installed, what a power loss keeps, and what the auditor
sees."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

import fanout
from fanout.core.ids import delivery_id
from fanout.testing.simulator.ledger import Ledger
from fanout_apns.simulator import ApnsSimulator
from fanout_kit.faulty import NAMES, Failpoint, arm, audit, reached, unpowered
from fanout_kit.faulty.disk import Write
from fanout_kit.faulty.failpoints import error

pytestmark = pytest.mark.anyio


def test_a_failpoint_is_written_as_it_is_read() -> None:
    for text in ("put.after:1", "wal.write:12:io", "settle.before:3:full"):
        assert str(Failpoint.parse(text)) == text
    assert Failpoint.parse("put.after") == Failpoint("put.after", 1, "kill")


@pytest.mark.parametrize("text", ["put.afterwards", "put.after:0", "put.after:x", "put.after:1:maim"])
def test_one_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Failpoint.parse(text)


def test_an_error_comes_at_its_hit_and_from_then_on() -> None:
    try:
        arm({"FANOUT_FAILPOINT": "lease.after:2:full"})
        assert error("put.after") is None
        assert error("lease.after") is None
        assert isinstance(error("lease.after"), fanout.StorageFull)
        assert reached("lease.after")
    finally:
        arm({})
    assert not reached("lease.after")


def test_the_program_knows_its_failpoints_and_its_plugins(tmp_path: Path) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "fanout_kit.faulty"], capture_output=True, text=True, check=True
    ).stdout
    assert [line.split()[0] for line in listed.splitlines()] == list(NAMES)
    config = tmp_path / "fanout.toml"
    config.write_text('storage = "faulty-sqlite:x.db"\n')
    told = subprocess.run(
        [sys.executable, "-m", "fanout_kit.faulty", "doctor", "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"FANOUT_FAILPOINT": ""},
    )
    for name in ("faulty-sqlite", "faulty-memory", "faulty-apns", "faulty-webpush"):
        assert name in told.stdout + told.stderr
    plain = subprocess.run(
        [sys.executable, "-m", "fanout", "doctor", "--config", str(config)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "no storage backend called 'faulty-sqlite' is installed" in plain.stdout + plain.stderr


def test_a_power_loss_keeps_what_was_synced_and_may_keep_the_rest() -> None:
    log = [
        Write("write", "x", 0, b"a" * 1024),
        Write("sync", "x"),
        Write("write", "x", 512, b"b" * 1024),
        Write("write", "y", 0, b"c" * 10),
    ]
    found = [unpowered(log, random.Random(seed)) for seed in range(200)]
    assert all(files["x"][:512] == b"a" * 512 for files in found)
    assert {len(files["x"]) for files in found} == {1024, 1536}
    assert {"y" in files for files in found} == {True, False}
    assert any(files["x"][512:1024] == b"b" * 512 and len(files["x"]) == 1024 for files in found), "a torn write"


async def test_the_auditor_sees_what_is_lost_false_and_sent_twice(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with (
        ApnsSimulator(ledger=ledger) as apple,
        fanout.open(storage="memory:", transports={"apns": apple.settings()}) as engine,
    ):
        for n in range(3):
            await engine.endpoints.register(user="alice", binding="apns", address=apple.address(n))
        receipt = await engine.send(fanout.Notification(title="x"), "user:alice")
        await receipt.wait(60)
        later = await engine.send(fanout.Notification(title="x"), "user:alice", at=time.time() + 3600)
        honest = await audit(engine, [receipt.id], ledger)
        lost = await audit(engine, [receipt.id, later.id, str(uuid4())], ledger)
        raw = ledger.read_bytes()
        ledger.write_bytes(raw[:112])
        false = await audit(engine, [receipt.id], ledger)
        ledger.write_bytes(raw + raw[:112])
        again = await audit(engine, [receipt.id], ledger, edges=[1])
        book = Ledger(ledger)
        book.add(delivery_id(receipt.id, 99), "0" * 32, receipt.id, 1.0)
        book.close()
        unasked = await audit(engine, [receipt.id], ledger)
    assert (honest.deliveries, honest.lost, honest.false, honest.duplicates, honest.unasked) == (3, 0, 0, 0, 0)
    assert honest.states == {"accepted": 3}
    assert lost.lost == 2, "one that is not there, and one that was never expanded"
    assert false.false == 1
    assert (again.duplicates, again.worst) == (2, 1), "one that the first worker sent, and one of the second"
    assert unasked.unasked == 1
