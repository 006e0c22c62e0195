"""What an operator does: see why something waits, hold it, let it go on; metrics and logs of a worker."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fanout.cli.status import MEANING
from fanout.core.states import Waiting

FANOUT = [sys.executable, "-m", "fanout"]


def start(shell: Any, *words: str, **environ: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*FANOUT, *words], cwd=shell.folder, env=shell.environ | environ, stdout=pipe, stderr=pipe, text=True
    )


def drain(shell: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FANOUT, "work", "--drain"], cwd=shell.folder, env=shell.environ, capture_output=True, text=True, timeout=120
    )


def status(shell: Any, *words: str) -> dict[str, Any]:
    (found,) = shell("status", *words, "--json").lines
    return dict(found)


def test_a_notification_is_held_and_goes_on(shell: Any) -> None:
    shell.register(("alice", "phone"), ("alice", "tablet"), ("bob", "phone-of-bob"))
    id = shell.ok("send", "--to", "user:alice", "--title", "T")
    (held,) = shell("pause", id, "--json").lines
    assert (held["state"], held["pending_by_reason"]) == ("paused", {"paused": 2})
    again = shell.ok("pause", id)
    assert "paused      2  an operator paused it" in again
    shell.ok("send", "--to", "user:bob", "--title", "T", "--wait")  # delivers whatever may be delivered
    assert status(shell, id)["counts"]["pending"] == 2
    (resumed,) = shell("resume", id, "--json").lines
    assert resumed["state"] == "running"
    assert drain(shell).returncode == 0
    assert status(shell, id)["counts"]["accepted"] == 2


def test_a_binding_is_held_and_goes_on(shell: Any) -> None:
    shell.register(("alice", "phone"))
    assert shell("pause", "--binding", "pigeon", "--json").lines == [
        {"app": "default", "binding": "pigeon", "paused": True}
    ]
    id = shell.ok("send", "--to", "user:alice", "--title", "T")
    assert status(shell, id)["pending_by_reason"] == {"paused": 1}
    assert status(shell)["paused"] == ["pigeon"]
    assert re.search(r"paused +pigeon", shell.ok("status"))
    assert shell.ok("resume", "--binding", "pigeon", "--app", "default") == "default/pigeon goes on."
    assert status(shell)["paused"] == []
    assert drain(shell).returncode == 0
    assert status(shell, id)["counts"]["accepted"] == 1


@pytest.mark.parametrize("command", ["pause", "resume"])
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "Name one thing"),
        (["ID", "--binding", "pigeon"], 2, "Name one thing"),
        (["ID", "--app", "default"], 2, "--app goes with --binding"),
        (["--binding", "dove"], 2, "pigeon"),
        (["--binding", "pigeon", "--app", "shop"], 2, "shop"),
        (["0197f0c0-0000-7000-8000-000000000000"], 1, "No notification"),
    ],
)
def test_what_cannot_be_held(shell: Any, command: str, words: list[str], code: int, says: str) -> None:
    if code == 1:
        shell.register()
    result = shell(command, *words)
    assert result.code == code
    assert says in result.err
    assert result.out == ""


def test_every_decision_about_a_delivery_in_order(shell: Any) -> None:
    phone, dead = shell.register(("alice", "phone"), ("alice", "dead-phone"))
    id = shell.ok("send", "--to", "user:alice", "--title", "T")
    shell.ok("pause", id)
    assert "Waits as paused: an operator paused it" in shell.ok("explain", id, "--endpoint", str(phone))
    shell.ok("resume", id)
    assert drain(shell).returncode == 0
    steps = shell("explain", id, "--endpoint", str(dead), "--json").lines
    assert list(steps[0]) == [
        "id", "endpoint", "at", "what", "reason", "attempt", "until", "worker", "waiting", "state",
    ]  # fmt: skip
    assert {(step["id"], step["endpoint"]) for step in steps} == {(id, dead)}
    whats = [step["what"] for step in steps]
    order = ["accepted", "queued", "paused", "resumed", "leased", "ended"]
    assert [what for what in whats if what in order] == order
    assert (steps[-1]["state"], steps[-1]["reason"]) == ("gone", "Unregistered")
    assert sorted(step["at"] for step in steps) == [step["at"] for step in steps]
    shown = shell.ok("explain", id, "--endpoint", str(dead))
    assert re.search(r"ended +(attempt 1, )?gone, Unregistered", shown)
    assert "Waits as" not in shown


def test_what_cannot_be_explained(shell: Any) -> None:
    (phone,) = shell.register(("alice", "phone"))
    id = shell.ok("send", "--to", "user:alice", "--title", "T")
    unknown = shell("explain", "0197f0c0-0000-7000-8000-000000000000", "--endpoint", str(phone))
    assert (unknown.code, unknown.out) == (1, "")
    assert "No notification" in unknown.err
    foreign = shell("explain", id, "--endpoint", str(phone + 1))
    assert (foreign.code, foreign.out) == (1, "")
    assert "no delivery for the endpoint" in foreign.err
    assert shell("explain", id).code == 2


def test_a_closed_gate_is_shown_with_what_to_do(shell: Any) -> None:
    shell.register(("alice", "parked-phone"))
    id = shell.ok("send", "--to", "user:alice", "--title", "T")
    child = start(shell, "work")
    try:
        while not (found := status(shell))["gates"]:
            assert child.poll() is None
    finally:
        child.terminate()
        child.communicate(timeout=120)
    shown = shell.ok("status", id)
    assert re.search(r"breaker +1  a credential, topic or project is wrong: mend it", shown)
    assert re.search(r"closed +pigeon, endpoint [0-9a-f]{8}: breaker until \S+ \(the loft is locked\)", shown)
    assert "this endpoint alone says so" in shown
    assert "fanout resume --binding pigeon" in shown
    (gate,) = found["gates"]
    assert (gate["binding"], gate["scope"], gate["waiting"], gate["reason"]) == (
        "pigeon", "endpoint", "breaker", "the loft is locked",
    )  # fmt: skip
    assert (found["app"], found["waiting"], found["backlog"]["deliveries"]) == ("default", {"breaker": 1}, 1)
    everything = shell.ok("status")
    assert re.search(r"default  1 waiting, the oldest due for \d+ s", everything)
    assert "the loft is locked" in everything


def test_nothing_waits(shell: Any) -> None:
    shell.register()
    assert shell.ok("status") == "default  0 waiting"
    assert status(shell)["backlog"] == {"deliveries": 0, "bytes": 0, "oldest_at": None}


def test_every_reason_for_waiting_has_a_meaning() -> None:
    assert set(MEANING) == set(Waiting)


def test_the_quarantine_shows_why_and_gives_back(shell: Any) -> None:
    (dead,) = shell.register(("alice", "dead-phone"))
    shell.ok("send", "--to", "user:alice", "--title", "T", "--wait")
    assert "gone (Unregistered)" in shell.ok("endpoints", "list", "--state", "gone")
    (found,) = shell("endpoints", "list", "--state", "gone", "--json").lines
    assert (found["id"], found["reason"]) == (dead, "Unregistered")
    assert shell.ok("endpoints", "restore", str(dead)) == "1 of 1 restored"
    assert "Unregistered" not in shell.ok("endpoints", "list")


def read_until(child: subprocess.Popen[str], wanted: Callable[[str], Any]) -> tuple[list[str], Any]:
    """Lines of standard error up to the first that is wanted, and what was wanted of it."""
    assert child.stderr is not None
    lines: list[str] = []
    for line in child.stderr:
        lines.append(line)
        if found := wanted(line):
            return lines, found
    raise AssertionError(f"It ended: {lines}")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_worker_serves_metrics_and_logs_as_json(shell: Any) -> None:
    shell.register(("alice", "phone"), ("bob", "parked-phone"), ("carol", "parked-tablet"))
    child = start(shell, "work", "--metrics", "127.0.0.1:0", "--log-format", "json")
    try:
        lines, found = read_until(child, lambda line: re.search(r"http://127\.0\.0\.1:\d+/metrics", line))
        for user in ("bob", "carol"):  # two witnesses close the binding's gate
            shell.ok("send", "--to", f"user:{user}", "--title", "T")
        more, _ = read_until(child, lambda line: '"scope":"binding"' in line)
        with urllib.request.urlopen(found.group(), timeout=120) as answer:
            families = {f.name: f for f in text_string_to_metric_families(answer.read().decode())}
        (closed,) = [s for s in families["fanout_gate"].samples if s.labels["state"] == "closed"]
        assert (closed.labels["app"], closed.labels["binding"], closed.value) == ("default", "pigeon", 1)
        assert "fanout_loop_lag_seconds" in families
        assert [sample.value for sample in families["fanout_workers"].samples] == [1]
        child.terminate()
        _, rest = child.communicate(timeout=120)
        assert child.returncode == 0
        records = [orjson.loads(line) for line in (*lines, *more, *rest.splitlines())]
    finally:
        child.kill()
        child.communicate()
    for record in records:
        assert list(record)[:4] == ["time", "level", "logger", "message"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"])
        assert "parked-phone" not in str(record)
        assert "parked-tablet" not in str(record)
    alone, parked = [record for record in records if "the loft is locked" in record["message"]]
    assert (alone["logger"], alone["level"]) == ("fanout.evidence", "warning")
    assert (parked["event"], parked["level"], parked["app"], parked["binding"], parked["reason"]) == (
        "gate.closed", "error", "default", "pigeon", "the loft is locked",
    )  # fmt: skip
    assert {record["event"] for record in records if record["logger"] == "fanout.cli"} == {"command"}


@pytest.mark.long("tests/cli/test_platform.py asks several processes whether they are ready")
def test_each_of_several_processes_has_a_port_of_its_own(shell: Any) -> None:
    child = start(shell, "work", "--processes", "2", "--metrics", "0", FANOUT_LOG_FORMAT="json")
    try:
        url = re.compile(r"http://127\.0\.0\.1:(\d+)/metrics")
        _, first = read_until(child, url.search)
        _, second = read_until(child, url.search)
        assert first.group(1) != second.group(1)
        for found in (first, second):
            with urllib.request.urlopen(found.group(), timeout=120) as answer:
                assert b"fanout_info" in answer.read()
        child.terminate()
        child.communicate(timeout=120)
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize(
    ("words", "environ", "says"),
    [
        (["work", "--metrics", "nowhere"], {}, "write HOST:PORT"),
        (["work", "--processes", "3", "--metrics", "65535"], {}, "leaves no room"),
        (["status"], {"FANOUT_LOG_FORMAT": "xml"}, "use text or json"),
    ],
)
def test_what_cannot_be_served_or_logged(shell: Any, words: list[str], environ: dict[str, str], says: str) -> None:
    child = start(shell, *words, **environ)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 2
    assert says in err
