"""Faults in the storages: what is remembered, and who may write it."""

from __future__ import annotations

from tests.mutants.plant import Plant

__all__ = ["PLANTS"]

_SQLITE = "tests/storage/test_sqlite.py -k Inline"
_POSTGRES = "tests/postgres/test_conformance.py"
_LISTENING = "tests/postgres/test_listening.py -k 'another_process or made_again'"

PLANTS = [
    Plant(
        "a lost file is named to its first finder alone",
        "fanout/storage/sqlite/operations.py",
        "str(self._broken) if isinstance(self._broken, StorageError) else said",
        "said",
        "tests/storage/test_full.py -k 'disappears'",
    ),
    Plant(
        "PostgreSQL: the name of a new app is entered in everybody's transaction",
        "fanout/storage/postgres/gathering.py",
        "            if not self._knows(app):\n",
        "            if False:\n",
        "tests/postgres/test_gathering.py",
    ),
    Plant(
        "PostgreSQL: a settlement waits for a lock with others in hand",
        "fanout/storage/postgres/settling.py",
        "WHERE id = o.notification OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED",
        "WHERE id = o.notification OFFSET 0 FOR NO KEY UPDATE",
        "tests/postgres/test_settling.py",
    ),
    Plant(
        "PostgreSQL: a chunk that is a part of its notification ends it",
        "fanout/storage/postgres/settling.py",
        "n.settled = 0 AND n.total = j.count AND",
        "n.settled = 0 AND",
        "tests/postgres/test_settling.py",
    ),
    Plant(
        "PostgreSQL: a former holder ends a notification",
        "fanout/storage/postgres/settling.py",
        "AND c.epoch = j.epoch AND",
        "AND",
        "tests/postgres/test_settling.py",
    ),
    Plant(
        "SQLite: a chunk that is a part of its notification ends it",
        "fanout/storage/sqlite/settling.py",
        "AND n.total = j.value->>3 AND",
        "AND",
        "tests/storage/test_settling.py",
    ),
    Plant(
        "a chunk that has lost its endpoints is leased",
        "fanout/storage/suspects.py",
        "end = LOST if due.lost and not due.stopped else",
        "end =",
        "tests/engine/test_lost_audience.py",
    ),
    Plant(
        "a wait for what another process has finished before is never told",
        "fanout/engine/upkeep.py",
        "if self._waiters.unasked:",
        "if False:",
        "tests/engine/test_waiting.py",
    ),
    Plant(
        "a stale lease settles",
        "fanout/storage/settlements.py",
        "if chunk is None or chunk.epoch != settlement.epoch:",
        "if chunk is None:",
        _SQLITE,
    ),
    Plant(
        "SQLite: an epoch stays the same from lease to lease",
        "fanout/storage/sqlite/leasing.py",
        "worker = ?1, epoch = epoch + 1, leased_at",
        "worker = ?1, epoch = 1, leased_at",
        _SQLITE,
    ),
    Plant(
        "SQLite: a lease that has been given back is extended",
        "fanout/storage/sqlite/leasing.py",
        '"WHERE c.epoch = j.value->>1 AND c.owner IS NOT NULL",',
        '"WHERE c.epoch = j.value->>1",',
        _SQLITE,
    ),
    Plant(
        "SQLite: a lease is extended by any epoch",
        "fanout/storage/sqlite/leasing.py",
        '"WHERE c.epoch = j.value->>1 AND c.owner IS NOT NULL",',
        '"WHERE c.owner IS NOT NULL",',
        _SQLITE,
    ),
    Plant(
        "SQLite: what is paused is leased",
        "fanout/storage/sqlite/leasing.py",
        "    if db.paused(binding_number):\n        return []\n    _gather",
        "    _gather",
        "tests/storage/test_sqlite.py -k after_the_look",
    ),
    Plant(
        "SQLite: retries are leased before they are due",
        "fanout/storage/sqlite/leasing.py",
        '"(SELECT * FROM retry WHERE binding = ? AND lane = ? AND due_at <= ? ORDER BY due_at LIMIT ?)",',
        '"(SELECT * FROM retry WHERE binding = ? AND lane = ? AND due_at <= ? + 1e9 ORDER BY due_at LIMIT ?)",',
        _SQLITE,
    ),
    Plant(
        "SQLite: a retry row stays beside the chunk that it became",
        "fanout/storage/sqlite/leasing.py",
        '        "DELETE FROM retry WHERE (notification, endpoint) IN',
        '        "DELETE FROM retry WHERE 0 AND (notification, endpoint) IN',
        _SQLITE,
    ),
    Plant(
        "SQLite: a release does not wait for its time",
        "fanout/storage/sqlite/ledger.py",
        '"UPDATE chunk SET owner = NULL, ready_at = j.value->>1, waiting',
        '"UPDATE chunk SET owner = NULL, ready_at = 0, waiting',
        _SQLITE,
    ),
    Plant(
        "SQLite: a broadcast is due from when it was sent",
        "fanout/storage/sql/expansion.py",
        "NewChunk(source.notification, binding, lane, 1, now, sorted(piece))",
        "NewChunk(source.notification, binding, lane, 1, 0.0, sorted(piece))",
        _SQLITE,
    ),
    Plant(
        "SQLite: another app's collapse key supersedes",
        "fanout/storage/sqlite/session.py",
        'same = "n.app = j.app AND n.collapse_key = j.key',
        'same = "n.collapse_key = j.key',
        _SQLITE,
    ),
    Plant(
        "SQLite: idempotency keys are kept for ever",
        "fanout/storage/sql/intake.py",
        "Rows(keyed, 2), now - db.context.retention.idempotency_keys)",
        "Rows(keyed, 2), -1e300)",
        _SQLITE,
    ),
    Plant(
        "row 47: PostgreSQL: epochs are merely counted",
        "fanout/storage/postgres/leasing.py",
        '_NEXT = "greatest(c.epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)"',
        '_NEXT = "c.epoch + 1"',
        "tests/postgres/test_kills.py -k row_47 --short-rows",
    ),
    Plant(
        "PostgreSQL: a lease is extended by any epoch",
        "fanout/storage/postgres/leasing.py",
        "WHERE id = j.id AND epoch = j.epoch AND owner",
        "WHERE id = j.id AND owner",
        _POSTGRES,
    ),
    Plant(
        "PostgreSQL: two workers lease one chunk",
        "fanout/storage/postgres/leasing.py",
        "ORDER BY c.ready_at, c.id LIMIT %d FOR NO KEY UPDATE OF c SKIP LOCKED",
        "ORDER BY c.ready_at, c.id LIMIT %d",
        "tests/postgres/test_claims.py",
    ),
    Plant(
        "PostgreSQL: a lost answer to a settlement settles twice",
        "fanout/storage/sql/settling.py",
        "        if notifications is not None:\n            return notifications\n",
        "",
        "tests/postgres/test_connection.py",
    ),
    Plant(
        "PostgreSQL: a connection that listened and was lost is not made again",
        "fanout/storage/postgres/listening.py",
        "        while self._pool.options.prepared:\n",
        "        for _ in range(1):\n",
        _LISTENING,
    ),
    Plant(
        "PostgreSQL: what was committed while nothing listened is not looked for",
        "fanout/storage/postgres/listening.py",
        "            self._heard()  # commits from before were not reported here\n",
        "",
        _LISTENING,
    ),
    Plant(
        "PostgreSQL: a notice of another process is taken for one's own",
        "fanout/storage/postgres/listening.py",
        "        if payload == self._token:\n",
        "        if payload:\n",
        _LISTENING,
    ),
    Plant(
        "PostgreSQL: commits are told to nobody",
        "fanout/storage/postgres/operations.py",
        "            self.listener.committed()\n",
        "            pass\n",
        _LISTENING,
    ),
    Plant(
        "SQLite: puts that share their statements are answered in the wrong order",
        "fanout/storage/sqlite/operations.py",
        "        for operation, (several, _) in zip(operations, puts, strict=True):\n",
        "        for operation, (several, _) in zip(reversed(operations), puts, strict=True):\n",
        "tests/storage/test_gathered_puts.py",
    ),
    Plant(
        "SQLite: puts that wait together are stored one by one",
        "fanout/storage/sqlite/driver.py",
        "        if operation is put_gathered:\n",
        "        if not arguments:\n",
        "tests/storage/test_gathered_puts.py",
    ),
    Plant(
        "SQLite: a put is answered before its commit",
        "fanout/storage/sqlite/worker.py",
        "            database.patient = self._closing\n",
        "            self._answer(writes)\n            database.patient = self._closing\n",
        "tests/storage/test_overlap.py",
    ),
]
