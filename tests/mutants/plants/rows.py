"""Faults that a row of the fault run is there to find: each is planted, and the row must fail in its short form."""

from __future__ import annotations

from tests.mutants.plant import Plant

__all__ = ["PLANTS"]

_BOOKED = (
    "fanout/engine/pump.py",
    "            indices = start(run)\n",
    "            indices = start(run)\n            run.accept(range(len(run)))\n",
)

PLANTS = [
    Plant(
        "row 1: a delivery is booked accepted before its answer",
        *_BOOKED,
        "tests/faults/test_kills.py -k row_01 --short-rows",
    ),
    Plant(
        "row 3: a delivery is booked accepted before its answer",
        *_BOOKED,
        "tests/faults/test_kills.py -k row_03 --short-rows",
    ),
    Plant(
        "benchmarks kills: a delivery is booked accepted before its answer",
        *_BOOKED,
        "tests/benchmarks/test_quick.py -k kills --soak",
    ),
    Plant(
        "row 27: FCM, Web Push and WNS are told the whole TTL",
        "fanout/engine/lease.py",
        "ttl = 0 if prepared.once else int(prepared.expires_at - now)",
        "ttl = 0 if prepared.once else int(prepared.notification.ttl)",
        "tests/faults/test_time.py -k row_27 --short-rows",
    ),
    Plant(
        "row 27: FCM is told at each attempt what it was told at the first",
        "transports/fanout_fcm/payload.py",
        "        if ttl != self._ttl:\n",
        "        if self._ttl < 0:\n",
        "tests/faults/test_time.py -k row_27 --short-rows",
    ),
    Plant(
        "row 27: Web Push is told a day",
        "transports/fanout_webpush/transport.py",
        "        fields = ttl_field(host.ttl(delivery.ttl)) + message.fields\n",
        "        fields = ttl_field(host.ttl(86_400)) + message.fields\n",
        "tests/faults/test_time.py -k row_27 --short-rows",
    ),
    Plant(
        "row 27: WNS is told a day",
        "transports/fanout_wns/transport.py",
        'headers["X-WNS-TTL"] = str(ttl)',
        'headers["X-WNS-TTL"] = str(86_400)',
        "tests/faults/test_time.py -k row_27 --short-rows",
    ),
    Plant(
        "row 30: sending goes on while results cannot be stored",
        "fanout/engine/settler.py",
        "        if not self.stuck:\n            self.stuck = True\n            for state in self.states:\n                state.hold()\n",
        "        if True:\n",
        "tests/faults/test_disk.py -k row_30 --short-rows",
    ),
    Plant(
        "row 18: what GOAWAY excludes is sent again at the cost of an attempt",
        "fanout/http/inbound.py",
        'sent: Literal["no", "unknown"] = "unknown" if excluded in self.partial else "no"',
        'sent: Literal["no", "unknown"] = "unknown"',
        "tests/faults/test_connections.py -k row_18 --short-rows",
    ),
    Plant(
        "row 46: a commit in doubt is made once more",
        "fanout/storage/sql/intake.py",
        "    if db.again:\n",
        "    if False:\n",
        "tests/postgres/test_kills.py -k row_46 --short-rows",
    ),
    Plant(
        "row 6: a sender does not look at its lease",
        "fanout/engine/pump.py",
        "if prepared.stopped or moment >= prepared.expires_at or begun >= lease.until:",
        "if prepared.stopped or moment >= prepared.expires_at:",
        "tests/faults/test_processes.py -k row_06 --short-rows",
    ),
    Plant(
        "row 15: a gate that is probed lets everybody through",
        "fanout/core/gate.py",
        "return self._out < self._allowed or outlived(self.probed_at, self.probe_until, now)",
        "return True",
        "tests/core/test_gate.py tests/faults/test_outage.py -k 'TestGate or row_15' --short-rows",
    ),
]
