"""Checks of the audit log: lines in the transaction that they speak of, apart from other events, kept for a time of
their own."""

from __future__ import annotations

import contextlib

from fanout.core.audit import Audit
from fanout.core.policy import Retention
from fanout.core.records import Event
from fanout.errors import NotFound
from fanout.testing.storage_kit import T0, Kit, device, law, post, submission


def _line(kind: str, **data: object) -> Audit:
    return Audit(kind=f"audit.{kind}", by="key:k1", data=data)


async def auditing(kit: Kit) -> None:
    """Each method that takes a line writes it, as an event of the app; where the method fails, there is no line."""
    async with kit.open() as storage:
        sub = submission(now=T0)
        await storage.register([device("alice", "a")], T0)
        await post(storage, sub)
        await storage.pause("default", sub.id, T0 + 1, audit=_line("notification.paused"))
        await storage.resume("default", sub.id, T0 + 2, audit=_line("notification.resumed"))
        await storage.cancel("default", sub.id, T0 + 3, audit=_line("notification.cancelled", notification=sub.id))
        await storage.pause_binding("default", "apns", T0 + 4, audit=_line("binding.paused"))
        await storage.resume_binding("default", "apns", T0 + 5, audit=_line("binding.resumed"))
        await storage.erase_user("default", "alice", T0 + 6, audit=_line("user.erased"))
        await storage.record("other", _line("config.taken"), T0 + 7)
        with contextlib.suppress(NotFound):
            await storage.cancel("default", "unknown", T0 + 8, audit=_line("notification.cancelled"))
        lines = await storage.events(audit=True)
        kinds = "notification.paused notification.resumed notification.cancelled binding.paused binding.resumed user.erased config.taken"
        law([line.kind for line in lines] == [f"audit.{kind}" for kind in kinds.split()], "a line for each, in order")
        law([line.at for line in lines] == [T0 + second for second in range(1, 8)], "at the time of the call")
        law([line.app for line in lines] == ["default"] * 6 + ["other"], "of the app of the call")
        law(lines[2].data == {"by": "key:k1", "notification": sub.id}, "it says who asked for what")


async def auditing_is_apart(kit: Kit) -> None:
    """Lines of the audit log are only in answers to callers that asked for them; the numbers are one order."""
    async with kit.open() as storage:
        owned = [each.id for each in await storage.register([device("alice", "a"), device("alice", "b")], T0)]
        for second in range(3):
            await storage.record("default", _line("config.taken", change=second), T0 + second)
            await storage.remove_endpoints("default", owned[second : second + 1], T0 + second)
        lines, others = await storage.events(audit=True), await storage.events()
        law([event.kind for event in others] == ["endpoint.removed"] * 2, "other events are without them")
        law([line.data["change"] for line in lines] == [0, 1, 2], "they are without other events")
        ids = [event.id for event in sorted([*lines, *others], key=lambda event: event.id)]
        law(len(set(ids)) == 5 and lines[0].id < others[0].id < lines[1].id, "no number is of two events")
        law(await storage.events(audit=True, limit=2) == lines[:2], "at most so many")
        law(await storage.events(audit=True, after=lines[1].id) == lines[2:], "after the cursor")
        law(await storage.events(after=others[0].id, limit=1) == others[1:2], "as all events")


async def auditing_names_nobody(kit: Kit) -> None:
    """A user is a hash, the same for the same user of the same app of the same database, and of no other."""
    async with kit.open() as storage:
        for app, user in (("default", "alice"), ("default", "alice"), ("default", "bob"), ("other", "alice")):
            await storage.record(app, Audit(kind="audit.user.exported", user=user), T0)
        lines: list[Event] = await storage.events(audit=True)
        persons = [line.data["person"] for line in lines]
        law(persons[0] == persons[1] and len(set(persons)) == 3, "each user of each app has a hash")
        law("alice" not in str(lines) and "bob" not in str(lines), "and no line has an id")
        law(await storage.person("default", "alice") == persons[0], "by which lines can be found")
    if kit.again is not None:
        async with kit.open_again() as again:
            law(await again.person("default", "alice") == persons[0], "the database keeps with what it hashes")
    async with kit.open() as another:
        law(await another.person("default", "alice") != persons[0], "another database hashes otherwise")


async def auditing_keeps_its_time(kit: Kit) -> None:
    """Neither retention deletes lines that the other keeps, whichever is longer, and deletion is bounded."""
    for events, audit in ((100.0, 200.0), (200.0, 100.0)):
        keep = Retention(notifications=1000.0, quarantine=1000.0, tombstones=1000.0, events=events, audit=audit)
        async with kit.open(retention=keep) as storage:
            for endpoint in await storage.register([device("alice", str(number)) for number in range(3)], T0):
                await storage.record("default", _line("config.taken"), T0)
                await storage.remove_endpoints("default", [endpoint.id], T0)

            async def left() -> tuple[int, int]:
                return len(await storage.events()), len(await storage.events(audit=True))

            law(await storage.prune(T0 + 99, limit=100) == 0, "nothing is deleted within its time")
            law(await storage.prune(T0 + 101, limit=2) == 2, "no more than the limit")
            law(await storage.prune(T0 + 101, limit=100) == 1, "then the rest of one kind")
            law(await left() == ((0, 3) if events < audit else (3, 0)), "and nothing of the other")
            law(await storage.prune(T0 + 201, limit=100) == 3, "which has its own time")
            law(await left() == (0, 0), "then all is gone")
