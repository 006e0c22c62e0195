"""Faults in `fanout/core`: what is decided."""

from __future__ import annotations

from tests.mutants.plant import Plant

__all__ = ["PLANTS"]

_STATES = "tests/storage/test_memory.py -k law"
_SETTLEMENT = "tests/core/test_settlement.py"

PLANTS = [
    Plant(
        "a gateway to which no connection comes about is asked again later each time",
        "fanout/core/gate.py",
        "            after = min(rng.uniform(pace / 2, pace), max",
        "            after = max(rng.uniform(pace / 2, pace), max",
        "tests/core/test_gate.py",
    ),
    Plant(
        "each probe of an outage doubles the wait after another failure",
        "fanout/core/gate.py",
        "            self.closures = max(1, self.closures)\n",
        "            self.closures += 1\n",
        "tests/core/test_gate.py",
    ),
    Plant(
        "an end is overwritten by a later one",
        "fanout/core/statemap.py",
        "            if after[position] not in UNSETTLED:\n                raise _twice(settlement, position)\n            after[position] = code\n",
        "            after[position] = code\n",
        _STATES,
    ),
    Plant(
        "what is in doubt does not count as open",
        "fanout/core/statemap.py",
        "return states.count(OPEN) + states.count(DOUBTFUL) + states.count(MARKED)",
        "return states.count(OPEN) + states.count(MARKED)",
        _STATES,
    ),
    Plant(
        "a release keeps the marks of a suspected chunk",
        "fanout/core/statemap.py",
        "        states = states.replace(_MARKED, _OPEN)\n    applied",
        "        pass\n    applied",
        _STATES,
    ),
    Plant(
        "reasons are counted without end",
        "fanout/core/statemap.py",
        'if len(self.pairs) >= _DISTINCT and reason != "other":',
        'if len(self.pairs) >= 10_000 and reason != "other":',
        _STATES,
    ),
    Plant(
        "the doubtful are sent again after a crash",
        "fanout/core/statemap.py",
        "states = states.replace(_DOUBTFUL, bytes((code,)))",
        "states = states.replace(_DOUBTFUL, _OPEN)",
        _STATES,
    ),
    Plant(
        "an empty budget lets retries through",
        "fanout/core/budget.py",
        "        if self.tokens < 1.0:\n            return False\n",
        "        if self.tokens < 1.0:\n            return True\n",
        "tests/core/test_budget.py",
    ),
    Plant(
        "successes pay for whole retries",
        "fanout/core/budget.py",
        "self.tokens + successes * self._ratio)",
        "self.tokens + successes)",
        "tests/core/test_budget.py",
    ),
    Plant(
        "the limit does not fall when the gateway throttles",
        "fanout/core/limiter.py",
        "self.limit = max(1.0, _DROP * self._blamed(in_flight, ceiling))",
        "self.limit = max(1.0, limit)",
        "tests/core/test_limiter.py",
    ),
    Plant(
        "a silence leaves the limit at what a new connection takes at first",
        "fanout/core/limiter.py",
        "level = min(self.limit, float(max(self._most, in_flight)))",
        "return min(self.limit, float(ceiling))",
        "tests/core/test_limiter.py",
    ),
    Plant(
        "the limit grows while the application is the limit",
        "fanout/core/limiter.py",
        "if gradient == 1.0 and in_flight * 2 < limit:",
        "if gradient == 1.0 and in_flight * 2 < 0:",
        "tests/core/test_limiter.py",
    ),
    Plant(
        "a crash between two groups implicates the whole chunk",
        "fanout/core/poison.py",
        "    if not marked:\n        return AfterCrash(crashes, part)\n",
        "    if not marked:\n        return AfterCrash(crashes + 1, part)\n",
        "tests/core/test_poison.py",
    ),
    Plant(
        "a suspect dies at its second crash",
        "fanout/core/poison.py",
        "_DEAD_AT = 3",
        "_DEAD_AT = 2",
        "tests/core/test_poison.py",
    ),
    Plant(
        "a verdict older than the registration kills the endpoint",
        "fanout/core/settlement.py",
        "if since is not None and tried.registered_at > since:",
        "if since is not None and tried.registered_at < since - 1e12:",
        _SETTLEMENT,
    ),
    Plant(
        "a retry is due after the notification's end",
        "fanout/core/settlement.py",
        "    if due_at >= tried.expires_at:\n        return Final(DeliveryState.EXPIRED, reason)\n    return Retry(",
        "    return Retry(",
        _SETTLEMENT,
    ),
    Plant(
        "one attempt more than the policy allows",
        "fanout/core/settlement.py",
        "if tried.attempt >= policy.attempts:",
        "if tried.attempt > policy.attempts:",
        _SETTLEMENT,
    ),
    Plant(
        "doubt is retried although the caller forbade it",
        "fanout/core/settlement.py",
        '        case Unavailable(_, _, reason, after):\n            if tried.repeat != "prefer_delivery":',
        '        case Unavailable(_, _, reason, after):\n            if tried.repeat == "at_most_once":',
        _SETTLEMENT,
    ),
    Plant(
        "Retry-After is taken without its cap",
        "fanout/core/settlement.py",
        "retry_after = min(max(after, 0.0), policy.retry_after_cap)",
        "retry_after = max(after, 0.0)",
        _SETTLEMENT,
    ),
    Plant(
        "a cohort told one second comes back as one",
        "fanout/core/settlement.py",
        "return retry_after + rng.uniform(0.0, 0.1 * retry_after + policy.backoff_base)",
        "return retry_after",
        _SETTLEMENT,
    ),
    Plant(
        "back-off has half of its jitter",
        "fanout/core/policy.py",
        "return rng.uniform(0.0, ceiling)",
        "return rng.uniform(ceiling / 2, ceiling)",
        _SETTLEMENT,
    ),
    Plant(
        "a newcomer takes of the rate what others still have",
        "fanout/core/fleet.py",
        "return max(0.0, min(mine, rate - math.fsum(each.counted for each in others)))",
        "return max(0.0, mine)",
        "tests/core/test_fleet.py",
    ),
    Plant(
        "a rate that refuses takes its tokens nevertheless",
        "fanout/core/rate.py",
        "        self._level = level\n        return (n - level) / self.per_second",
        "        self._level = level - n\n        return (n - level) / self.per_second",
        "tests/core/test_rate.py",
    ),
    Plant(
        "a gateway that comes and goes takes all attempts of a delivery",
        "fanout/core/settlement.py",
        " and 2 * tried.attempt <= policy.attempts",
        "",
        "tests/core/test_settlement.py -k comes_and_goes",
    ),
]
