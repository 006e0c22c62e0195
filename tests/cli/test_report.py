"""The status as every interface prints it."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from fanout.cli.status import describe, show
from fanout.core.records import Status
from fanout.core.report import eta, status_report


def status(total: int | None, *, due_at: float = 100.0, finished_at: float | None = None, **counts: int) -> Status:
    return Status(
        id="n",
        app="default",
        state="running",
        total=total,
        counts=counts,
        pending_by_reason={"ready": 1},
        reasons={},
        attempts=3,
        accepted_at=100.0,
        due_at=due_at,
        expires_at=1000.0,
        finished_at=finished_at,
        oldest_pending_at=100.0,
    )


@pytest.mark.parametrize(
    ("found", "now", "seconds"),
    [
        (status(100, accepted=50, pending=50), 110.0, 10.0),
        (status(100, accepted=20, gone=5, pending=75), 110.0, 30.0),
        (status(100, due_at=105.0, accepted=50, pending=50), 110.0, 5.0),
        (status(100, accepted=100, finished_at=110.0), 200.0, 0.0),
        (status(100, pending=100), 110.0, None),
        (status(None, accepted=50), 110.0, None),
        (status(100, due_at=500.0, pending=100), 110.0, None),
        (status(100, accepted=1, pending=99), 500.0, 500.0),
        (status(100, accepted=50, pending=50), 90.0, None),
    ],
)
def test_eta(found: Status, now: float, seconds: float | None) -> None:
    assert eta(found, now) == seconds


def test_every_state_is_there_even_at_zero() -> None:
    report = status_report(status(2, accepted=1, pending=1), 101.0)
    assert report["counts"] == {
        "pending": 1,
        "accepted": 1,
        "gone": 0,
        "rejected": 0,
        "expired": 0,
        "cancelled": 0,
        "superseded": 0,
        "dead": 0,
    }
    assert report["pending_by_reason"] == {"ready": 1}
    assert report["eta_s"] == 1.0


def test_what_was_enqueued_and_refused_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    refused = replace(status(0, finished_at=110.0), state="cancelled", reasons={"cancelled": {"too large": 0}})
    assert "  refused     too large" in describe(refused)
    show(refused, json=True)
    assert orjson.loads(capsys.readouterr().out)["refused"] == "too large"
    for other in (status(1, accepted=1, finished_at=110.0), replace(refused, reasons={})):
        assert "refused" not in describe(other)
