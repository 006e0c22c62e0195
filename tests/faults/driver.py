"""The driver: submits what its plan says, and writes each id down after `send` has returned, not before.

    tests.faults.driver CONFIG LOG PLAN       PLAN is JSON: {"rounds": [[[target, {notification…}, idempotency key or
    null], …], …]}

Each round is one `send_many`, or, with `"single": true`, as many concurrent `send`. A line of the log is the id, a
space, and the idempotency key.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import fanout
from fanout.errors import FanoutError

__all__ = ["main"]


def main() -> int:
    """Exit code 0 if everything was accepted, 3 if something was refused."""
    config, log, plan = sys.argv[1:4]
    return asyncio.run(_drive(config, log, json.loads(plan)))


async def _drive(config: str, log: str, plan: dict[str, Any]) -> int:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    refused = 0

    def note(id: str, key: str | None) -> None:
        os.write(descriptor, f"{id} {key or ''}\n".encode())

    try:
        async with fanout.open(config, role="submit") as engine:
            for batch in plan["rounds"]:
                messages = [(fanout.Notification(**what), target) for target, what, _ in batch]
                keys = [key for _, _, key in batch]
                if plan.get("single"):
                    sends = (
                        engine.send(notification, target, idempotency_key=key)
                        for (notification, target), key in zip(messages, keys, strict=True)
                    )
                    answers = await asyncio.gather(*sends, return_exceptions=True)
                else:
                    try:
                        answers = [*await engine.send_many(messages, idempotency_keys=keys)]
                    except FanoutError as error:
                        answers = [error for _ in keys]
                for answer, key in zip(answers, keys, strict=True):
                    if isinstance(answer, BaseException):
                        refused += 1
                        print(type(answer).__name__, answer, file=sys.stderr, flush=True)
                    else:
                        note(answer.id, key)
    finally:
        os.close(descriptor)
    return 3 if refused else 0
