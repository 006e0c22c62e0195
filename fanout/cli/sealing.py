"""`fanout endpoints seal`: the addresses of a database that was used without an address key, or under another one."""

from __future__ import annotations

from fanout.bootstrap import SystemClock, make_settings, storage_context
from fanout.cli.options import Config, Json
from fanout.cli.shell import answer, run, say
from fanout.errors import UsageError
from fanout.registry import Registry

__all__ = ["seal"]


def seal(config: Config = None, json: Json = False) -> None:
    """Encrypt every address in the database with the first key of addresses.key_file. End the other programs first,
    where none was.

    With a key that is already in use there is nothing to do. To replace a key, put the new one first and keep the old
    one below it, start all programs again, run this, and take the old one out.
    """

    async def command() -> int:
        registry = Registry()
        settings = make_settings(config, registry=registry)
        if settings.addresses.key is None:
            raise UsageError("addresses.key_file is not configured: `fanout keys address --out FILE` makes a key.")
        context = storage_context(settings, registry, SystemClock(), create=False)
        scheme, _, location = settings.storage.partition(":")
        made = registry.make_storage(settings.storage, context)
        if not made.shared:
            raise UsageError(f'storage = "{scheme}:" keeps nothing, so there is nothing to seal: name a database.')
        action = registry.storage(scheme).seal
        assert action is not None
        said = 0

        def progress(done: int) -> None:
            nonlocal said
            if done >= said + 100_000:
                said = done
                say(f"{done:,} sealed")

        done = await registry.resolve("storage", scheme, action)(location, context, progress)
        answer({"sealed": done}, f"{done:,} addresses sealed", json=json)
        return 0

    run(command)
