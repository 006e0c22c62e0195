"""Faults in `fanout/engine`: the path of a delivery, from lease to settlement."""

from __future__ import annotations

from tests.mutants.plant import Plant

__all__ = ["PLANTS"]

_PATH = "tests/engine/test_path.py tests/engine/test_leaving.py"
_POLICY = "tests/engine/test_policy.py"

_EVIDENCE = "tests/engine/test_evidence.py"

PLANTS = [
    Plant(
        "the sum of the limits of a binding's groups goes another way than they do",
        "fanout/engine/binding_state.py",
        "            self.limit += group.allow(0)\n        self._put_down(",
        "            group.allow(0)\n        self._put_down(",
        "tests/engine/test_runs.py -k 'goes_in_runs and memory'",
    ),
    Plant(
        "what is accepted behind a closed gate ends twice for its group",
        "fanout/engine/pump.py",
        "            group.end(count)\n",
        "            group.end(len(accepted) + len(others))\n",
        "tests/engine/test_runs.py -k 'spends_attempts and memory'",
    ),
    Plant(
        "a probe that comes to nothing keeps the gate of its notification",
        "fanout/engine/sender.py",
        "            for gate in (*gates.around(group, lease.prepared), gates.uncertain):\n                gate.unused()\n",
        "            pass\n",
        f"{_EVIDENCE} -k 'comes_to_nothing and not postgres'",
    ),
    Plant(
        "what was decided before the clock was set back is stored as it was",
        "fanout/engine/settler.py",
        "        self.watch.heard.append(self._set_back)\n",
        "",
        "tests/engine/test_watch.py -k 'decided_before and not postgres'",
    ),
    Plant(
        "what has expired is sent",
        "fanout/engine/sender.py",
        "if prepared.stopped or moment >= prepared.expires_at or begun >= lease.until:",
        "if prepared.stopped or begun >= lease.until:",
        f"{_PATH} -k 'time and not postgres'",
    ),
    Plant(
        "what was cancelled is sent",
        "fanout/engine/sender.py",
        "if prepared.stopped or moment >= prepared.expires_at or begun >= lease.until:",
        "if moment >= prepared.expires_at or begun >= lease.until:",
        f"{_PATH} tests/engine/test_operate.py -k 'not postgres'",
    ),
    Plant(
        "a transport that hangs is never cancelled",
        "fanout/engine/sender.py",
        "                begun_at[0] = _CANCELLED\n                self._state.fault(",
        "                continue\n                self._state.fault(",
        f"{_PATH} -k 'hangs and not postgres'",
    ),
    Plant(
        "a worker believes in its lease although its heartbeat has run out",
        "fanout/engine/lease.py",
        "self.until = min(self.granted, alive)",
        "self.until = self.granted",
        "tests/engine/test_fleet.py -k 'not postgres'",
    ),
    Plant(
        "accepted deliveries count no attempt",
        "fanout/engine/lease.py",
        "            self._attempts += len(self.accepted)\n",
        "",
        f"{_PATH} tests/engine/test_outcomes.py -k 'not postgres'",
    ),
    Plant(
        "a failed attempt keeps its number",
        "fanout/engine/lease.py",
        "self._retries.append(RetryRow(position, due_at, attempt, waiting.value, reason, holds))",
        "self._retries.append(RetryRow(position, due_at, 1, waiting.value, reason, holds))",
        "tests/engine/test_outcomes.py -k 'attempts and not postgres'",
    ),
    Plant(
        "a lease that is given back is due at once",
        "fanout/engine/lease.py",
        "            settlement.release = Release(self.release_at, self.waiting.value, self.reason)\n",
        "            settlement.release = Release(0.0, self.waiting.value, self.reason)\n",
        "tests/engine/test_capacity.py -k 'without_capacity and not postgres'",
    ),
    Plant(
        "what was marked in doubt and not sent stays in doubt",
        "fanout/engine/lease.py",
        "            if self.doubtful:\n                settlement.reopen = self.parked\n",
        "",
        "tests/engine/test_outcomes.py -k 'not postgres'",
    ),
    Plant(
        "one huge notification holds back the others of its lane",
        "fanout/engine/lane_queue.py",
        "            self._batches.rotate(-1)\n",
        "            pass\n",
        "tests/core/test_group.py",
    ),
    Plant(
        "a lane that has used up its turn goes on",
        "fanout/engine/group.py",
        "        queue.credit -= 1\n        self.active = active = active + 1",
        "        self.active = active = active + 1",
        "tests/core/test_group.py",
    ),
    Plant(
        "a run uses up no credit of its lane",
        "fanout/engine/group.py",
        "        queue.credit -= len(positions)\n",
        "",
        "tests/core/test_group.py",
    ),
    Plant(
        "what a transport cannot start is forgotten",
        "fanout/engine/pump.py",
        "        self._state.send_handed(run.of)\n",
        "",
        "tests/engine/test_runs.py",
    ),
    Plant(
        "a second attempt goes in a run with others",
        "fanout/engine/lane_queue.py",
        "1 if single or lease.careful else min(most, self._turn)",
        "1 if single else min(most, self._turn)",
        "tests/core/test_group.py",
    ),
    Plant(
        "live events tell before the commit",
        "fanout/engine/settler.py",
        "            results = await self.store([settlement for _, _, settlement in taken])\n",
        '            for _, _, settlement in taken:\n                self._live.emit("settled", now, counts={}, retries=0)\n'
        "            results = await self.store([settlement for _, _, settlement in taken])\n",
        f"{_PATH} -k 'commit and not postgres'",
    ),
    Plant(
        "a lease whose answer was lost stands still until it runs out",
        "fanout/engine/membership.py",
        "                await self._strays.give_back(now)\n",
        "",
        "tests/engine/test_strays.py -k 'lost and not postgres'",
    ),
    Plant(
        "what a lease call under way may still bring is given back",
        "fanout/core/fleet.py",
        "if asked := awaited.get(lease, calls) & calls:",
        "if asked := awaited.get(lease, frozenset()) & calls:",
        "tests/engine/test_strays.py -k 'under_way_may and not postgres'",
    ),
    Plant(
        "a slow worker leases what idle ones could send",
        "fanout/core/window.py",
        "LEAST = 64\n",
        "LEAST = 4000\n",
        "tests/engine/test_window.py -k 'urgent and not postgres'",
    ),
    Plant(
        "what is not begun is kept while others idle",
        "fanout/engine/membership.py",
        "                await self._yielding.look(self._clock.now())\n",
        "                pass\n",
        "tests/engine/test_window.py -k 'four_workers and not postgres'",
    ),
    Plant(
        "a worker whose database is silent goes on sending",
        "fanout/engine/settler.py",
        "loop.call_later(OVERDUE, self._hold,",
        "loop.call_later(60 * OVERDUE, self._hold,",
        "tests/engine/test_bound.py",
    ),
    Plant(
        "what fits is prepared for every binding all the same",
        "fanout/engine/intake.py",
        "                if self._fits(submission.app, binding, whole, len(submission.content)):\n                    continue\n",
        "",
        "tests/engine/test_prepared.py -k 'device_is_found and not postgres'",
    ),
    Plant(
        "what is stopped while it is leased for the first time is sent",
        "fanout/engine/stopping.py",
        "            self._said.update(stopped)\n",
        "            pass\n",
        "tests/engine/test_prepared.py -k 'while_it_is_leased and not postgres'",
    ),
    Plant(
        "what is leased again before a pause is stored is sent",
        "fanout/engine/stopping.py",
        "        self._said = dict(self._storing)\n",
        "        self._said = {}\n",
        "tests/engine/test_stopping.py -k 'leased_again and not postgres'",
    ),
    Plant(
        "what a transport must send again goes although nothing may be begun",
        "fanout/engine/pump.py",
        "        if group.limit and not (group.gate.shut(now) or state.gate.shut(now)):\n",
        "        if True:\n",
        "tests/engine/test_stopping.py -k 'must_go_again and not pause_binding'",
    ),
    Plant(
        "a free retry stands in the queue of a gate that has closed",
        "fanout/engine/binding_state.py",
        "        elif (gate := next((gate for gate in (group.gate, self.gate) if gate.shut(now)), None)) is not None:\n",
        "        elif (gate := None) is not None:\n",
        "tests/engine/test_stopping.py -k 'has_closed and free_retry'",
    ),
    Plant(
        "an engine that leaves goes on sending",
        "fanout/engine/binding_state.py",
        "            self.limit += group.allow(0)\n        self._put_down(",
        "            pass\n        self._put_down(",
        "tests/engine/test_stopping.py -k leaves",
    ),
    Plant(
        "what another process stops while it is leased here is sent",
        "fanout/engine/stopping.py",
        "        self.missed = self.missed or self._state.asking\n",
        "",
        "tests/engine/test_stopping.py -k 'another_process and not postgres'",
    ),
    Plant(
        "content in quotation marks is said to fit WNS",
        "transports/fanout_wns/payload.py",
        "times=6)",
        "times=2)",
        "tests/wns/test_conformance.py -k what_fits",
    ),
    Plant(
        "a key that FCM keeps for itself is said to fit",
        "transports/fanout_fcm/transport.py",
        'fitting(LIMIT, "fanout", *RESERVED, times=3)',
        'fitting(LIMIT, "fanout", times=3)',
        "tests/fcm/test_conformance.py -k what_fits",
    ),
    Plant(
        "a lease that was lost is waited for",
        "fanout/engine/settler.py",
        "            if lease.left and state.leases.get(lease.chunk.id) is lease:\n",
        "            if lease.left:\n",
        "tests/engine/test_settling.py -k complete_when",
    ),
]
