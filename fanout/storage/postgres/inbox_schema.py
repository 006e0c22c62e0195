"""The tables of the inbox."""

from __future__ import annotations

__all__ = ["INBOX"]

INBOX = """
-- What other programs' transactions have put here and no worker has taken yet. `xid` is of that transaction: what is below the oldest
-- that still runs is settled, so that a look for more need not pass over what was deleted (`inbox.due`), even while some old snapshot
-- keeps it from being cleaned away. Texts only, and no sequence that is waited for: any driver can write it, and none waits.
CREATE TABLE inbox (
  id bigint GENERATED ALWAYS AS IDENTITY, xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  accepted_at float8 NOT NULL, due_at float8 NOT NULL, expires_at float8 NOT NULL,
  uuid text COLLATE "C" NOT NULL PRIMARY KEY, app text COLLATE "C" NOT NULL, key text COLLATE "C", digest bytea NOT NULL,
  envelope text NOT NULL, content text NOT NULL
);
CREATE INDEX inbox_order ON inbox (xid, id);
CREATE INDEX inbox_key ON inbox (app, key) WHERE key IS NOT NULL;
-- What became of those that are no notification of their own: an earlier one's key (`became` is its id), or why they were refused.
CREATE TABLE enqueued (
  at float8 NOT NULL, accepted_at float8 NOT NULL, due_at float8 NOT NULL, expires_at float8 NOT NULL,
  uuid text COLLATE "C" NOT NULL PRIMARY KEY, app text COLLATE "C" NOT NULL, became text COLLATE "C", refused text
);
CREATE INDEX enqueued_at ON enqueued (at);
"""
