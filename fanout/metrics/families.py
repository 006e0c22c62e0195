"""From a view of an engine, and storage's figures for its apps, to metrics. Pure.

Labels are apps, bindings, lanes, states, reasons of a bounded list and the like: never a user, an endpoint, a
notification, a host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fanout.config import ConfigState
from fanout.core.gate import GateState
from fanout.core.model import LANES
from fanout.core.records import Backlog
from fanout.engine.counters import BindingView, EngineView, Histogram
from fanout.metrics.text import Family

__all__ = ["Stored", "families"]

_EVERYWHERE = "Of the whole database, the same from every process: take the max over instances, not the sum."


@dataclass(frozen=True, slots=True)
class Stored:
    """Storage's figures of one app: deliveries by their reason for waiting, and the backlog."""

    waiting: Mapping[str, int]
    backlog: Backlog


def families(
    view: EngineView,
    stored: Mapping[str, Stored] | None,
    lag: Histogram | None,
    version: str,
    workers: int | None = None,
    refused: Mapping[tuple[str, str], int] | None = None,
    *,
    age: float = 0.0,
) -> list[Family]:
    """Every metric. `stored` is the answer of storage `age` seconds ago (0: just now), or None where it has not said
    anything yet; `lag` is the event loop's, where it is measured.

    `workers` are those that share the database and count as alive; None where it is not shared, or could not say.
    `refused` are the service's security events by app and reason.
    """
    return [
        *_process(view, stored is not None and not age, age, lag, version),
        *_fleet(workers),
        *_refused(refused or {}),
        *_queue(view, stored or {}),
        *_counted(view.bindings),
        *_standing(view.bindings),
        *_connections(view.bindings),
    ]


def _process(view: EngineView, storage_up: bool, age: float, lag: Histogram | None, version: str) -> list[Family]:
    info = Family("fanout_info", "gauge", "The version of fanout.").add(1, version=version)
    up = Family("fanout_storage_up", "gauge", "Whether storage answered this scrape.").add(int(storage_up))
    stale = Family(
        "fanout_storage_stale_seconds",
        "gauge",
        "Age of the values that are read from the database; 0 where it has just answered.",
    ).add(age)
    stuck = Family("fanout_results_stuck", "gauge", "1 while results cannot be stored (disk full): nothing is sent.")
    stuck.add(int(view.stuck))
    trouble = Family(
        "fanout_storage_trouble",
        "gauge",
        "1 while a loop of this process waits for storage: it is full, refuses (an operator mends it), is unavailable, or refuses a content.",
    )
    for kind in ("full", "refused", "unavailable", "content"):
        trouble.add(int(view.trouble == kind), kind=kind)
    since = Family("fanout_storage_trouble_seconds", "gauge", "For how long one has been waiting; 0 while none does.")
    since.add(view.trouble_seconds)
    accepted = Family("fanout_notifications_accepted_total", "counter", "Notifications that this process accepted.")
    for app, count in view.accepted.items():
        accepted.add(count, app=app)
    unexpanded = Family(
        "fanout_notifications_unexpanded_total",
        "counter",
        "Notifications that expired before their audience was counted, as this process found.",
    )
    for app in view.apps:
        unexpanded.add(view.unexpanded.get(app, 0), app=app)
    commits = Family("fanout_commit_seconds", "histogram", "How long storing a batch of results took.")
    commits.add(view.commits)
    loop = Family("fanout_loop_lag_seconds", "histogram", "How late the event loop woke a timer, twice a second.")
    if lag is not None:
        loop.add(lag)
    return [info, up, stale, stuck, trouble, since, accepted, unexpanded, commits, loop, *_config(view.config)]


def _config(state: ConfigState) -> list[Family]:
    changes = Family("fanout_config_changes_total", "counter", "Changed configurations, by their result.")
    changes.add(state.taken, result="taken")
    changes.add(state.refused, result="refused")
    refused = Family(
        "fanout_config_refused", "gauge", "1 while the changed files are refused, and older settings serve."
    ).add(int(bool(state.problem)))
    late = Family(
        "fanout_config_restart_needed", "gauge", "Parts of the changed files that are taken at the next start."
    ).add(len(state.at_restart))
    return [changes, refused, late]


def _fleet(workers: int | None) -> list[Family]:
    alive = Family("fanout_workers", "gauge", f"Workers that were heard of within their heartbeat. {_EVERYWHERE}")
    if workers is not None:
        alive.add(workers)
    return [alive]


def _refused(counts: Mapping[tuple[str, str], int]) -> list[Family]:
    refusals = Family("fanout_refusals_total", "counter", "Requests that were refused as security events, by reason.")
    for (app, reason), count in sorted(counts.items()):
        refusals.add(count, app=app, reason=reason)
    return [refusals]


def _queue(view: EngineView, stored: Mapping[str, Stored]) -> list[Family]:
    waiting = Family(
        "fanout_deliveries_waiting",
        "gauge",
        f"Deliveries that have not ended, by their waiting reason (leased: a worker has them). {_EVERYWHERE}",
    )
    deliveries = Family("fanout_backlog_deliveries", "gauge", f"Deliveries accepted and not ended. {_EVERYWHERE}")
    size = Family("fanout_backlog_bytes", "gauge", f"Bytes of content accepted and not ended. {_EVERYWHERE}")
    age = Family("fanout_queue_age_seconds", "gauge", f"For how long the oldest delivery has been due. {_EVERYWHERE}")
    for app, found in stored.items():
        for reason, count in sorted(found.waiting.items()):
            waiting.add(count, app=app, reason=reason)
        backlog = found.backlog
        deliveries.add(backlog.deliveries, app=app)
        size.add(backlog.bytes, app=app)
        age.add(0.0 if backlog.oldest_at is None else max(0.0, view.now - backlog.oldest_at), app=app)
    return [waiting, deliveries, size, age]


def _counted(bindings: Sequence[BindingView]) -> list[Family]:
    attempts = Family("fanout_attempts_total", "counter", "Attempts that reached for the network.")
    size = Family("fanout_attempt_bytes_total", "counter", "Bytes of payload in attempts, as the gateway counts them.")
    ended = Family("fanout_deliveries_total", "counter", "Deliveries that this process settled, by how they ended.")
    retries = Family("fanout_retries_total", "counter", "Deliveries put off by themselves, by their waiting reason.")
    releases = Family("fanout_releases_total", "counter", "Chunks given back unfinished, by their waiting reason.")
    stale = Family("fanout_stale_leases_total", "counter", "Leases that another worker had taken over.")
    faults = Family("fanout_faults_total", "counter", "Breaches of contract by a plugin.")
    late = Family(
        "fanout_late_answers_total", "counter", "Answers to deliveries that were given up, or that came twice."
    )
    lag = Family(
        "fanout_delivery_seconds", "histogram", "From when a delivery was due until its acceptance was stored."
    )
    for each in bindings:
        labels, counters = {"app": each.app, "binding": each.binding}, each.counters
        attempts.add(counters.attempts, **labels)
        size.add(counters.bytes, **labels)
        for (state, reason), count in counters.outcomes.items():
            ended.add(count, **labels, state=state, reason=reason)
        for (why, reason), count in counters.retries.items():
            retries.add(count, **labels, waiting=why, reason=reason)
        for why, count in counters.released.items():
            releases.add(count, **labels, waiting=why)
        stale.add(counters.stale, **labels)
        faults.add(each.faults, **labels)
        late.add(each.late, **labels)
        for lane, histogram in zip(LANES, counters.lag, strict=True):
            lag.add(histogram, **labels, lane=lane)
    return [attempts, size, ended, retries, releases, stale, faults, late, lag]


def _standing(bindings: Sequence[BindingView]) -> list[Family]:
    queued = Family(
        "fanout_lane_deliveries", "gauge", "Deliveries of the lane that this worker holds and has not sent."
    )
    age = Family("fanout_lane_age_seconds", "gauge", "How long the oldest of them has been due.")
    gate = Family("fanout_gate", "gauge", "1 for the state of the binding's gate.")
    groups = Family("fanout_group_gates", "gauge", "Groups (gateways, Web Push hosts) by the state of their gate.")
    topics = Family(
        "fanout_topic_gates", "gauge", "Topics that an answer of the gateway held back, by the state of their gate."
    )
    paused = Family("fanout_binding_paused", "gauge", "1 while an operator holds the binding.")
    breakers = Family(
        "fanout_breakers", "gauge", "Gates that stay closed until an operator repairs a credential, topic or project."
    )
    flight = Family("fanout_in_flight", "gauge", "Sends without an outcome.")
    limit = Family("fanout_in_flight_limit", "gauge", "Sends that may be under way, over all groups.")
    capacity = Family("fanout_in_flight_capacity", "gauge", "Sends that the connections would take at once.")
    budget = Family("fanout_retry_budget", "gauge", "Retries that may be made now.")
    leases = Family("fanout_leases", "gauge", "Chunks that this worker holds.")
    for each in bindings:
        labels = {"app": each.app, "binding": each.binding}
        for lane, count, seconds in zip(LANES, each.queued, each.oldest, strict=True):
            queued.add(count, **labels, lane=lane)
            age.add(seconds, **labels, lane=lane)
        for state in GateState:
            gate.add(int(each.gate == state), **labels, state=state.value)
            groups.add(each.group_gates[state.value], **labels, state=state.value)
            topics.add(each.topic_gates[state.value], **labels, state=state.value)
        breakers.add(each.breakers, **labels)
        paused.add(int(each.paused), **labels)
        flight.add(each.under_way, **labels)
        limit.add(each.limit, **labels)
        capacity.add(each.capacity, **labels)
        budget.add(each.budget, **labels)
        leases.add(each.leases, **labels)
    return [queued, age, gate, groups, topics, breakers, paused, flight, limit, capacity, budget, leases]


def _connections(bindings: Sequence[BindingView]) -> list[Family]:
    connections = Family("fanout_connections", "gauge", "Connections to the gateway that take requests.")
    requests = Family("fanout_connection_requests", "gauge", "Requests on the wire or waiting for it.")
    events = Family("fanout_connection_events_total", "counter", "Events of connections and of requests on them.")
    states = {"connections": connections, "requests": requests}
    for each in bindings:
        labels = {"app": each.app, "binding": each.binding}
        for name, value in (each.connections or {}).items():
            if name in states:
                states[name].add(value, **labels)
            else:
                events.add(value, **labels, event=name)
    return [connections, requests, events]
