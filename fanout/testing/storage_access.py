"""The laws of keys and host names: an entry stands for every process until it is revoked, and each change leaves a
line."""

from __future__ import annotations

from dataclasses import replace

from fanout.core.access import Grant
from fanout.plugin import access_of
from fanout.testing.storage_kit import T0, Kit, law

_PROOF = "sha256:" + "0" * 64
_CALLER = Grant(id="0123456789ab", app="default", kind="caller", proof=_PROOF, name="billing", role="send")
_HOST = Grant(id="push.example.com", app="shop", kind="host", expires_at=T0 + 3600.5)


async def grants_stand_until_they_are_revoked(kit: Kit) -> None:
    """A grant is of one app, stands once, and is gone when it is revoked; a line of the event log says so, with no
    proof in it."""
    async with kit.open() as storage:
        access = access_of(storage)
        law(await access.grants() == [], "at first there is none")
        law(await access.grant(_HOST, T0 + 1.25, by="shell"), "one that is new is entered")
        law(await access.grant(replace(_CALLER, used_at=T0, made_at=T0), T0 + 2.5, by="fedcba987654"), "and another")
        found = await access.grants()
        entered = [replace(_CALLER, made_at=T0 + 2.5), replace(_HOST, made_at=T0 + 1.25)]
        law(found == entered, f"they are read by id, as they were entered, made at that time and never used: {found}")
        law(not await access.grant(replace(_CALLER, app="shop"), T0 + 3, by="x"), "an id stands once, whatever the app")
        law(await access.grants() == entered, "and existing entries are left as they were")
        law(not await access.revoke("shop", _CALLER.id, T0 + 4, by="x"), "that of another app is not revoked")
        law(not await access.revoke("nobody", _CALLER.id, T0 + 4, by="x"), "nor by an app that nothing is known of")
        law(not await access.revoke("default", "none", T0 + 4, by="x"), "nor is one that there is not")
        law(await access.grants() == entered, "and all stand still")
        law(await access.revoke("default", _CALLER.id, T0 + 5.5, by="shell"), "that of the app is")
        law(not await access.revoke("default", _CALLER.id, T0 + 6, by="shell"), "once")
        law(await access.grants() == entered[1:], "and is gone")
        lines = [(line.at, line.app, line.kind, dict(line.data)) for line in await storage.events(audit=True)]
        made = {"role": "send", "expires_at": None, "by": "fedcba987654"}
        expected = [
            (T0 + 1.25, "shop", "audit.host.added", {"host": _HOST.id, "by": "shell"}),
            (T0 + 2.5, "default", "audit.key.made", _fields(_CALLER) | made),
            (T0 + 5.5, "default", "audit.key.revoked", _fields(_CALLER) | {"by": "shell"}),
        ]
        law(lines == expected, f"each change has one line, and a refused change has none: {lines}")
        law(await access.grant(_CALLER, T0 + 7, by="shell"), "a revoked entry may be made again")


async def uses_of_grants_are_kept(kit: Kit) -> None:
    """The latest use of each is kept, in any order of the processes' writes; a use of a revoked caller does not restore
    it."""
    async with kit.open() as storage:
        access = access_of(storage)
        await access.grant(_CALLER, T0, by="shell")
        await access.grant(_HOST, T0, by="shell")
        await access.used({_CALLER.id: T0 + 20.5, "none": T0 + 1})
        await access.used({_CALLER.id: T0 + 10})
        await access.used({})
        found = [(grant.id, grant.used_at) for grant in await access.grants()]
        law(found == [(_CALLER.id, T0 + 20.5), (_HOST.id, None)], f"the latest use stands, and no other: {found}")
        await access.revoke("default", _CALLER.id, T0 + 30, by="shell")
        await access.used({_CALLER.id: T0 + 40, _HOST.id: T0 + 41})
        found = [(grant.id, grant.used_at) for grant in await access.grants()]
        law(found == [(_HOST.id, T0 + 41)], f"a revoked entry stays revoked: {found}")


async def grants_survive_reopening(kit: Kit) -> None:
    """A grant is there for other processes that open the database, beside it or after it; and so is a revocation."""
    async with kit.open() as storage:
        await access_of(storage).grant(_CALLER, T0, by="shell")
        await access_of(storage).grant(_HOST, T0, by="shell")
        await access_of(storage).revoke("shop", _HOST.id, T0 + 1, by="shell")
        shared = storage.shared
        if shared:
            async with kit.open_again() as other:
                law(await access_of(other).grants() == [replace(_CALLER, made_at=T0)], "another process reads them")
                law(await access_of(other).revoke("default", _CALLER.id, T0 + 2, by="shell"), "and revokes")
            law(await access_of(storage).grants() == [], "an entry is then revoked for all")
    if not shared:
        async with kit.open_again() as again:
            law(await access_of(again).grants() == [replace(_CALLER, made_at=T0)], "they are there after it")


def _fields(grant: Grant) -> dict[str, object]:
    return {"id": grant.id, "kind": grant.kind, "name": grant.name}
