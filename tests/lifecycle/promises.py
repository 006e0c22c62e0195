"""What was promised of every delivery, as plain dictionaries that know nothing of chunks' maps, heaps or SQL.

It is told what was asked of a storage and what a worker settled, and says from that alone how every delivery must
stand: which have ended and how, who holds which, when the rest may go, and for what each waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from fanout.core.model import Target
from fanout.core.records import AddressMoved, Chunk, EndpointGone, Settlement, Submission
from fanout.core.states import DOUBT
from fanout.testing.storage_kit import device

__all__ = ["MENDED", "Promises"]

MENDED = ("gate", "breaker", "quota", "budget")
"""What `retry_binding` makes due."""

Record = dict[str, Any]


class Promises:
    """`notes`, `deliveries` (by notification, then endpoint), `leases` (by chunk), `endpoints`, `keys`, `paused`
    bindings, `gates`."""

    def __init__(self) -> None:
        self.notes: dict[str, Record] = {}
        self.deliveries: dict[str, dict[int, Record]] = {}
        self.leases: dict[int, Record] = {}
        self.epochs: dict[int, int] = {}
        self.endpoints: dict[int, Record] = {}
        self.keys: dict[str, Record] = {}
        self.paused: set[str] = set()
        self.nudges: Counter[str] = Counter()
        self.gates: dict[str, tuple[str, float]] = {}
        self.last_endpoint = 0
        self.order = 0

    # -- the directory

    def registered(self, id: int, user: str, binding: str, token: str, tags: Iterable[str], now: float) -> None:
        """Check the id that a registration was given, and remember it."""
        digest = device("", token).address.digest
        holder = self.holder(binding, digest)
        if holder is not None and self.endpoints[holder]["user"] == user:
            expected = holder
        else:
            former = [
                each
                for each, e in self.endpoints.items()
                if (e["binding"], e["digest"], e["user"]) == (binding, digest, user)
            ]
            expected = max(former, default=id)
            if not former:
                assert id > self.last_endpoint, "a new endpoint has an id of its own"
            if holder is not None:
                self.endpoints[holder] |= {"state": "replaced", "state_at": now}
        assert id == expected, (
            "an address registered again by its user keeps its id; by another, it is another endpoint"
        )
        self.last_endpoint = max(self.last_endpoint, id)
        generation = self.endpoints.get(id, {"generation": 0})["generation"] + 1
        self.endpoints[id] = {
            "user": user, "binding": binding, "digest": digest, "tags": set(tags), "state": "active", "state_at": now,
            "generation": generation,
        }  # fmt: skip

    def holder(self, binding: str, digest: str) -> int | None:
        """The active endpoint of an address."""
        for id, e in self.endpoints.items():
            if (e["binding"], e["digest"], e["state"]) == (binding, digest, "active"):
                return id
        return None

    def removed(self, ids: Iterable[int], now: float) -> int:
        chosen = [id for id in ids if id in self.endpoints and self.endpoints[id]["state"] in ("active", "gone")]
        for id in chosen:
            self.endpoints[id] |= {"state": "removed", "state_at": now}
        return len(chosen)

    def restored(self, ids: Iterable[int]) -> int:
        count = 0
        for id in ids:
            e = self.endpoints.get(id)
            if e is None or e["state"] in ("active", "replaced") or not e["digest"]:
                continue
            if self.holder(e["binding"], e["digest"]) is None:
                e |= {"state": "active", "generation": e["generation"] + 1}
                count += 1
        return count

    def involved(self, user: str) -> bool:
        """Whether something is addressed to this user by name or by endpoints, or an address of the user is another
        endpoint's too."""
        mine = {(e["binding"], e["digest"]) for e in self.endpoints.values() if e["user"] == user}
        shared = any((e["binding"], e["digest"]) in mine and e["user"] != user for e in self.endpoints.values())
        targets = [note["target"] for note in self.notes.values()]
        return shared or any(t.kind not in ("topic", "all") and (user in t.names or not t.names) for t in targets)

    def erased(self, user: str, now: float) -> int:
        mine = [e for e in self.endpoints.values() if e["user"] == user]
        for e in mine:
            e |= {"user": "", "digest": "", "tags": set(), "state": "removed", "state_at": now}
        return len(mine)

    def _changed(self, change: EndpointGone | AddressMoved, now: float) -> None:
        e = self.endpoints.get(change.endpoint)
        if e is None or e["state"] != "active" or e["generation"] != change.generation:
            return
        if isinstance(change, EndpointGone):
            e |= {"state": "gone", "state_at": change.at}
            return
        holder = self.holder(e["binding"], change.address.digest)
        if holder is not None and holder != change.endpoint:
            e |= {"state": "replaced", "state_at": change.at}
        else:
            e |= {"digest": change.address.digest, "generation": e["generation"] + 1}

    def covers(self, target: Target, id: int) -> bool:
        """Whether a target names this endpoint now."""
        e = self.endpoints.get(id)
        if e is None or e["state"] != "active":
            return False
        if target.kind in ("user", "users"):
            return e["user"] in target.names
        if target.kind == "endpoints":
            return id in target.ids
        return bool(e["user"]) and (target.kind == "all" or target.names[0] in e["tags"])

    # -- acceptance

    def accepted(self, sub: Submission, now: float) -> tuple[str, ...]:
        """A notification was stored; which others it must have superseded."""
        superseded: tuple[str, ...] = ()
        if sub.collapse_key is not None:
            for id, note in self.notes.items():
                if (note["collapse"], note["target"]) == (sub.collapse_key, sub.target) and self.runs(id):
                    self.stopped(id, "superseded", now)
                    superseded = (*superseded, id)
        self.order += 1
        self.notes[sub.id] = {
            "target": sub.target, "lane": sub.lane, "repeat": sub.repeat, "due_at": sub.due_at,
            "expires_at": sub.expires_at, "collapse": sub.collapse_key, "order": self.order, "begun": False,
            "expanding": False, "dropped": False, "paused": False, "stopped": "", "finished": False, "attempts": 0,
            "must": set(), "may": set(), "high": 0,
        }  # fmt: skip
        self.deliveries[sub.id] = {}
        if sub.due_at <= now:
            self.begun(sub.id)
        return superseded

    def begun(self, id: str) -> None:
        """Its audience is that of this moment."""
        note = self.notes[id]
        note["begun"] = True
        note["high"] = self.last_endpoint
        note["must"] = {each for each in self.endpoints if self.covers(note["target"], each)}
        note["may"] = set(note["must"])
        note["expanding"] = note["target"].kind in ("topic", "all") and bool(note["must"])

    def watch_audiences(self) -> None:
        """The directory has changed: who is to be in an audience that is still being cut, and who may be."""
        for note in self.notes.values():
            if note["expanding"]:
                covered = {
                    each for each in self.endpoints if each <= note["high"] and self.covers(note["target"], each)
                }
                note["must"] &= covered
                note["may"] |= covered

    def queued(self, id: str, endpoint: int, due_at: float) -> None:
        """A delivery has come to be."""
        assert endpoint not in self.deliveries[id], "one delivery to an endpoint"
        self.deliveries[id][endpoint] = {
            "binding": self.endpoints[endpoint]["binding"], "end": None, "chunk": None, "not_before": due_at,
            "attempt": 1, "word": "ready", "row": False, "holds": False, "leases": 0, "crashes": 0, "in_a_row": 0, "alone": 0, "back": False,
        }  # fmt: skip

    def runs(self, id: str) -> bool:
        """Neither finished nor stopped."""
        return not (self.notes[id]["finished"] or self.notes[id]["stopped"])

    # -- leases

    def pending(self, id: str) -> dict[int, Record]:
        return {endpoint: d for endpoint, d in self.deliveries[id].items() if d["end"] is None}

    def is_paused(self, id: str, binding: str) -> bool:
        return bool(self.notes[id]["paused"]) or binding in self.paused

    def held(self, d: Record, now: float) -> bool:
        """Whether a lease on it runs."""
        return d["chunk"] is not None and self.leases[d["chunk"]]["until"] > now

    def holders(self, now: float, *, note: str = "", binding: str = "") -> int:
        """Running leases of a notification, or of a binding."""
        return sum(
            1
            for lease in self.leases.values()
            if lease["until"] > now and (lease["note"] == note or lease["binding"] == binding)
        )

    def end(self, id: str, endpoint: int, state: str, reason: str) -> None:
        d = self.deliveries[id][endpoint]
        assert d["end"] is None, "a delivery ends once"
        d |= {"end": (state, reason), "chunk": None, "row": False}

    def leased(self, worker: str, binding: str, lane: int, chunks: list[Chunk], now: float, until: float) -> None:
        """What `lease` may answer, and what it must have done to the leases that had run out."""
        if binding in self.paused:
            assert chunks == [], "nothing of a paused binding is leased"
            return
        moved = self._lost(binding, lane, now)
        for chunk in chunks:
            note = self.notes[chunk.notification]
            assert self.runs(chunk.notification), "nothing is leased after it was cancelled or superseded"
            assert not note["paused"], "nothing is leased while it is paused"
            assert (chunk.binding, chunk.lane, note["lane"]) == (binding, lane, lane)
            assert chunk.epoch > self.epochs.get(chunk.id, 0), "epochs only grow"
            self.epochs[chunk.id] = chunk.epoch
            found = {e for e, code in zip(chunk.ids, chunk.states, strict=True) if code == 0}
            for endpoint in found:
                d = self.deliveries[chunk.notification][endpoint]
                assert d["end"] is None, "what has ended is not open in a lease"
                assert d["chunk"] is None, "no two hold one delivery"
                assert d["not_before"] <= now, "nothing before its time"
                assert d["attempt"] == chunk.attempt, "attempts are counted as they were settled"
                assert (chunk.notification, endpoint) not in moved, "a suspect is leased by a later call"
                d |= {"chunk": chunk.id, "leases": d["leases"] + 1, "row": False, "holds": False, "word": "ready"}
                d["back"] = False
            assert found, "a chunk without an open delivery is done"
            crashes = min(self.deliveries[chunk.notification][endpoint]["in_a_row"] for endpoint in found)
            assert chunk.part <= max(1, (len(chunk.ids) + 1) // 2), "a part is at most half of its chunk"
            assert (chunk.part > 0) == (crashes >= 2), "after two crashes a chunk is sent in parts, and not before"
            self.leases[chunk.id] = {
                "worker": worker, "epoch": chunk.epoch, "until": until, "note": chunk.notification, "binding": binding,
                "lane": lane, "open": found, "doubt": set(), "marked": set(), "ids": chunk.ids, "part": chunk.part,
            }  # fmt: skip
        for id, note in self.notes.items():
            if note["lane"] == lane and self.runs(id) and not note["paused"]:
                for endpoint, d in self.pending(id).items():
                    left = d["binding"] == binding and d["leases"] and d["chunk"] is None and d["not_before"] <= now
                    assert not left or (id, endpoint) in moved, "what was in hand and is due is leased"

    def _lost(self, binding: str, lane: int, now: float) -> set[tuple[str, int]]:
        """The leases that have run out end, as `lease` comes by; who must have moved apart."""
        moved: set[tuple[str, int]] = set()
        for chunk, lease in list(self.leases.items()):
            id = lease["note"]
            if (lease["binding"], lease["lane"]) != (binding, lane) or lease["until"] > now or self.notes[id]["paused"]:
                continue
            self._let_go(chunk)
            for endpoint in lease["doubt"]:
                self.end(id, endpoint, "dead", "unknown")
            rest = lease["open"] - lease["doubt"]
            if self.notes[id]["stopped"]:
                for endpoint in rest:
                    self.end(id, endpoint, self.notes[id]["stopped"], "")
                continue
            suspects = lease["marked"] & rest
            for endpoint in rest:
                d = self.deliveries[id][endpoint]
                d["crashes"] += 1
                d["in_a_row"] += 1
                d["not_before"] = min(d["not_before"], now)
                if endpoint in suspects:
                    d |= {"not_before": now, "word": "ready"}
                    d["alone"] += len(suspects) == 1
                    if d["alone"] == 3:
                        self.end(id, endpoint, "dead", "poison")
                    else:
                        moved.add((id, endpoint))
        return moved

    def _let_go(self, chunk: int) -> None:
        lease = self.leases.pop(chunk)
        for endpoint in lease["open"]:
            self.deliveries[lease["note"]][endpoint]["chunk"] = None

    def current(self, settlement: Settlement) -> bool:
        """Whether its lease is still the chunk's."""
        lease = self.leases.get(settlement.chunk)
        return lease is not None and lease["epoch"] == settlement.epoch

    def settled(self, settlement: Settlement, now: float) -> None:
        """What a settlement of a current lease does."""
        lease = self.leases[settlement.chunk]
        id, ids = lease["note"], lease["ids"]
        note = self.notes[id]
        note["attempts"] += settlement.attempts
        ended: dict[int, tuple[str, str]] = {}
        for (state, reason), positions in settlement.results.items():
            for position in positions:
                if state == DOUBT:
                    lease["doubt"].add(ids[position])
                else:
                    ended[ids[position]] = (state, reason)
        lease["marked"] |= {ids[position] for position in settlement.marks}
        lease["doubt"] -= {ids[position] for position in settlement.reopen}
        for row in settlement.retries:
            endpoint = ids[row.position]
            if note["stopped"]:
                ended[endpoint] = (note["stopped"], "")
                continue
            for kind in ("open", "doubt", "marked"):
                lease[kind].discard(endpoint)
            self.deliveries[id][endpoint] |= {
                "in_a_row": 0, "alone": 0, "chunk": None, "not_before": row.due_at, "attempt": row.attempt, "word": row.waiting, "row": True,
                "holds": row.holds,
            }  # fmt: skip
        if settlement.release is not None and note["stopped"]:
            ended |= dict.fromkeys(lease["open"] - ended.keys(), (note["stopped"], ""))
        for endpoint, (state, reason) in ended.items():
            self.end(id, endpoint, state, reason)
        for kind in ("open", "doubt", "marked"):
            lease[kind] -= ended.keys()
        if settlement.release is not None:
            word = settlement.release.waiting
            for endpoint in lease["open"]:
                self.deliveries[id][endpoint] |= {
                    "not_before": settlement.release.due_at, "word": "ready" if word == "paused" else word,
                }  # fmt: skip
        if settlement.release is not None or not lease["open"]:
            self._let_go(settlement.chunk)
        for change in settlement.changes:
            self._changed(change, now)

    # -- what operators and time do

    def stopped(self, id: str, why: str, now: float) -> int:
        """Cancelled or superseded: what nobody holds ends; how many chunks are held."""
        note = self.notes[id]
        if note["finished"]:
            return 0
        note["stopped"] = note["stopped"] or why
        note["paused"] = False
        self._end_waiting(id, note["stopped"], "", now)
        return self.holders(now, note=id)

    def expired(self, now: float) -> int:
        """The time of some is up; how many deliveries end with that."""
        ended = 0
        for id, note in self.notes.items():
            if note["expires_at"] <= now and not note["finished"]:
                ended += self._end_waiting(id, note["stopped"] or "expired", "" if note["stopped"] else "ttl", now)
        return ended

    def _end_waiting(self, id: str, state: str, reason: str, now: float) -> int:
        note = self.notes[id]
        note["dropped"] = note["dropped"] or note["expanding"] or not note["begun"]
        note["expanding"], note["begun"] = False, True
        before = len(self.pending(id))
        for chunk, lease in list(self.leases.items()):
            if lease["note"] == id and lease["until"] <= now:
                self._let_go(chunk)
                for endpoint in lease["doubt"]:
                    self.end(id, endpoint, "dead", "unknown")
        left = [endpoint for endpoint, d in self.pending(id).items() if d["chunk"] is None]
        for endpoint in left:
            self.end(id, endpoint, state, reason)
        return before - len(self.pending(id))

    def mended(self, binding: str, now: float) -> None:
        """`retry_binding`: what waits for a gate, a breaker, a quota or a budget is due."""
        self.nudges[binding] += 1
        for id in self.notes:
            for d in self.pending(id).values():
                if d["binding"] == binding and d["chunk"] is None and d["word"] in MENDED:
                    d["not_before"] = min(d["not_before"], now)

    def finish(self) -> set[str]:
        """Those of which nothing is left by now, each once."""
        done = {
            id
            for id, note in self.notes.items()
            if note["begun"] and not note["expanding"] and not note["finished"] and not self.pending(id)
        }
        for id in done:
            self.notes[id]["finished"] = True
        return done

    # -- how things must stand

    def word(self, id: str, d: Record, now: float) -> str:
        """The one reason for which a pending delivery waits."""
        if self.held(d, now):
            return "ready"
        if self.is_paused(id, d["binding"]):
            return "paused"
        if d["back"] or d["chunk"] is not None:
            return self._gate(d["binding"], now) or "lane"  # held back, or lost by its holder
        waits = d["word"] if d["not_before"] > now else "lane"
        return self._gate(d["binding"], now) or waits

    def _gate(self, binding: str, now: float) -> str:
        gate = self.gates.get(binding)
        return gate[0] if gate is not None and now < gate[1] + 60 else ""

    def words(self, id: str, now: float) -> dict[str, int]:
        return dict(Counter(self.word(id, d, now) for d in self.pending(id).values()))

    def held_until(self, endpoint: int, now: float) -> float:
        """Until when the endpoint is in back-off."""
        rows = [all_[endpoint] for all_ in self.deliveries.values() if endpoint in all_]
        return max((d["not_before"] for d in rows if d["row"] and d["holds"] and d["not_before"] > now), default=0.0)

    def rivals(self, id: str, endpoint: int) -> bool:
        """Whether a later notification of the same collapse key is for this endpoint too."""
        mine = self.notes[id]
        return mine["collapse"] is not None and any(
            note["collapse"] == mine["collapse"]
            and note["order"] > mine["order"]
            and not note["stopped"]
            and self.covers(note["target"], endpoint)
            for note in self.notes.values()
        )
