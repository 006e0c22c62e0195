"""Makes the database of a version, as a worker of that version leaves it that was killed in the middle of everything.

    python tests/faults/old/make.py 1        # run with the code of the last release of schema version 1

writes `v1.sql` beside this file: the dump, with what the new version must find in comments at its head. Kept so that
the next change of the schema can be given its own; nothing imports it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import fanout
from fanout.cli.gateways import Gateway, toml
from fanout.testing.simulator.ledger import read_ledger
from fanout_apns.simulator import ApnsSimulator

_FAULTS = {"errors": {"ServiceUnavailable": 0.2}, "stall": 0.1}
_POLICY = {"lease": 20.0, "backoff_base": 5.0}


async def make(folder: Path) -> tuple[Path, dict[str, object]]:
    ledger = folder / "ledger"
    arguments = ["--ledger", str(ledger), "--faults", json.dumps(_FAULTS), "--options", json.dumps({"streams": 20})]
    ids: list[str] = []
    async with Gateway("apns", folder / "gateway", *arguments) as gateway:
        config = folder / "fanout.toml"
        config.write_text(toml(f"sqlite:{folder}/fanout.db", {"apns": gateway.settings}, _POLICY))
        async with fanout.open(config, role="submit") as engine:
            for device in range(40):
                await engine.endpoints.register(
                    user=f"u{device % 8}", binding="apns", address=ApnsSimulator.address(device), tags=["news"]
                )
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "fanout", "work", "--config", str(config), stderr=asyncio.subprocess.DEVNULL
            )
            for target in ["user:u1", "topic:news", "all", "user:u2"]:
                receipt = await engine.send(fanout.Notification(title=f"to {target}"), target, idempotency_key=target)
                ids.append(receipt.id)
            while (await engine.storage.outstanding()).get("backoff", 0) < 3:
                await asyncio.sleep(0.01)
            for target in ["user:u3", "all", "topic:news"]:
                at = time.time() + 3 if target == "all" else None
                receipt = await engine.send(fanout.Notification(title=f"late to {target}"), target, at=at)
                ids.append(receipt.id)
            receipt = await engine.send(fanout.Notification(title="collapses", collapse_key="k"), "user:u4")
            ids.append(receipt.id)
            while not (await engine.storage.outstanding()).get("leased"):
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            arrived = [entry.delivery for entry in read_ledger(ledger)]
            said = [
                f"{id} {endpoint}"
                for id in ids
                async for endpoint, state, _ in engine.deliveries(id)
                if state == "accepted"
            ]
    return folder / "fanout.db", {"made_at": time.time(), "notifications": ids, "arrived": arrived, "accepted": said}


def dump(path: Path, about: dict[str, object]) -> str:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = ("application_id", "user_version")
        pragmas = [f"PRAGMA {name} = {connection.execute(f'PRAGMA {name}').fetchone()[0]};" for name in names]
        lines = list(connection.iterdump())
    return "\n".join([f"-- {json.dumps(about)}", *pragmas, *lines]) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        path, about = asyncio.run(make(Path(name)))
        text = dump(path, about)
    (Path(__file__).parent / f"v{sys.argv[1]}.sql").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
