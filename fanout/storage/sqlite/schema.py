"""The tables, as the list of steps by which a file comes to have them.

A step is never edited once released: a change of the schema is a new step. `PRAGMA user_version` counts the steps done.
"""

from __future__ import annotations

from fanout.storage.sqlite.feed_schema import FEED

__all__ = ["APPLICATION_ID", "STEPS", "VERSION"]

APPLICATION_ID = 0x46414E4F
"""`FANO` in ASCII: what `PRAGMA application_id` of our files says."""

_FIRST = """
CREATE TABLE app (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE binding (
  id INTEGER PRIMARY KEY, app INTEGER NOT NULL, name TEXT NOT NULL, UNIQUE (app, name)
);

-- The directory. An interned endpoint has the user ''. `digest` identifies the address within its binding.
CREATE TABLE endpoint (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  app INTEGER NOT NULL, binding INTEGER NOT NULL, user TEXT NOT NULL, digest BLOB NOT NULL,
  kind TEXT NOT NULL, grp TEXT NOT NULL, platform TEXT NOT NULL, tags TEXT NOT NULL,
  generation INTEGER NOT NULL, registered_at REAL NOT NULL, expires_at REAL,
  state TEXT NOT NULL, state_at REAL, reason TEXT NOT NULL,
  address TEXT NOT NULL, identity TEXT NOT NULL
);
CREATE UNIQUE INDEX endpoint_active ON endpoint (binding, digest) WHERE state = 'active';
CREATE INDEX endpoint_former ON endpoint (binding, digest) WHERE state <> 'active';
CREATE INDEX endpoint_user ON endpoint (app, user) WHERE user <> '';
CREATE INDEX endpoint_audience ON endpoint (binding, id) WHERE state = 'active' AND user <> '';
CREATE INDEX endpoint_expiry ON endpoint (expires_at) WHERE state = 'active' AND expires_at IS NOT NULL;
CREATE INDEX endpoint_quarantine ON endpoint (state_at) WHERE state <> 'active';
-- Of active endpoints that belong to somebody only: a topic is read from here without looking further.
CREATE TABLE endpoint_tag (
  binding INTEGER NOT NULL, tag TEXT NOT NULL, endpoint INTEGER NOT NULL, PRIMARY KEY (binding, tag, endpoint)
) WITHOUT ROWID;

-- `settled` of `total` deliveries have ended; `expansions` are still to come; `stopped` is '', cancelled or superseded.
CREATE TABLE notification (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  uuid TEXT NOT NULL UNIQUE, app INTEGER NOT NULL, lane INTEGER NOT NULL, repeat TEXT NOT NULL,
  accepted_at REAL NOT NULL, due_at REAL NOT NULL, expires_at REAL NOT NULL,
  total INTEGER NOT NULL, settled INTEGER NOT NULL, expansions INTEGER NOT NULL, attempts INTEGER NOT NULL,
  stopped TEXT NOT NULL, finished_at REAL, collapse_key TEXT, target_key BLOB, content BLOB NOT NULL
);
CREATE INDEX notification_collapse ON notification (app, collapse_key, target_key)
  WHERE collapse_key IS NOT NULL AND finished_at IS NULL;
CREATE INDEX notification_expiry ON notification (expires_at) WHERE finished_at IS NULL;
CREATE INDEX notification_finished ON notification (finished_at) WHERE finished_at IS NOT NULL;
CREATE TABLE idempotency (
  app INTEGER NOT NULL, key TEXT NOT NULL, uuid TEXT NOT NULL, digest BLOB NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (app, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_at ON idempotency (at);

-- A cursor over an audience. Binding 0 is a schedule: its target is looked up when it is due.
CREATE TABLE expansion (
  id INTEGER PRIMARY KEY,
  notification INTEGER NOT NULL, app INTEGER NOT NULL, binding INTEGER NOT NULL, lane INTEGER NOT NULL,
  due_at REAL NOT NULL, cursor INTEGER NOT NULL, high INTEGER NOT NULL, target TEXT NOT NULL
);
CREATE INDEX expansion_due ON expansion (app, binding, lane, due_at);
CREATE INDEX expansion_of ON expansion (notification);

-- `open` counts deliveries neither ended nor gone to a retry row: at 0 the chunk is done. With an owner, `ready_at` is when
-- the lease ends; without, when the chunk is due.
CREATE TABLE chunk (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  notification INTEGER NOT NULL, binding INTEGER NOT NULL, lane INTEGER NOT NULL, attempt INTEGER NOT NULL,
  ready_at REAL NOT NULL, open INTEGER NOT NULL, owner TEXT, epoch INTEGER NOT NULL, waiting TEXT NOT NULL,
  low INTEGER NOT NULL, high INTEGER NOT NULL, states BLOB NOT NULL
);
CREATE INDEX chunk_ready ON chunk (binding, lane, ready_at) WHERE open > 0;
CREATE INDEX chunk_open ON chunk (notification) WHERE open > 0;
CREATE INDEX chunk_range ON chunk (notification, low, high);
-- The chunk's endpoint ids, eight bytes each, least significant first. Apart from the chunk, so that a settlement need not
-- write them again.
CREATE TABLE audience (chunk INTEGER PRIMARY KEY, ids BLOB NOT NULL);

CREATE TABLE retry (
  notification INTEGER NOT NULL, endpoint INTEGER NOT NULL, binding INTEGER NOT NULL, lane INTEGER NOT NULL,
  due_at REAL NOT NULL, attempt INTEGER NOT NULL, waiting TEXT NOT NULL, reason TEXT NOT NULL,
  PRIMARY KEY (notification, endpoint)
) WITHOUT ROWID;
CREATE INDEX retry_due ON retry (binding, lane, due_at);
-- How many retry rows of a notification wait for what: counting a million of them takes most of a second.
CREATE TABLE backlog (
  notification INTEGER NOT NULL, waiting TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (notification, waiting)
) WITHOUT ROWID;

-- A notification's list of (state, reason), and how many deliveries ended so.
CREATE TABLE tally (
  notification INTEGER NOT NULL, code INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY (notification, code)
) WITHOUT ROWID;

CREATE TABLE event (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, app INTEGER NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL
);
"""

_SECOND = """
-- `holds`: the endpoint's other deliveries wait for this row's time too.
ALTER TABLE retry ADD COLUMN holds INTEGER NOT NULL DEFAULT 0;
CREATE INDEX retry_holds ON retry (endpoint, due_at) WHERE holds;
"""

STEPS = (_FIRST, _SECOND, FEED)
VERSION = len(STEPS)
