"""The tables, as the list of steps by which a file comes to have them.

A step is never edited once released: a change of the schema is a new step. `PRAGMA user_version` counts the steps done.
"""

from __future__ import annotations

from fanout.storage.sqlite.feed_schema import DEVICES, DIGESTS, FEED, JOINS, LOOKS
from fanout.storage.sqlite.fleet_schema import FLEET

__all__ = ["APPLICATION_ID", "STEPS", "VERSION"]

APPLICATION_ID = 0x46414E4F
"""`FANO` in ASCII: the `PRAGMA application_id` of our files."""

_FIRST = """
CREATE TABLE app (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE binding (
  id INTEGER PRIMARY KEY, app INTEGER NOT NULL, name TEXT NOT NULL, UNIQUE (app, name)
);

-- The directory. An interned endpoint has the user ''. `digest` identifies the address within its binding; sealed, it is
-- a keyed hash, and `address` and `identity` are encrypted.
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
-- A paused notification's chunks, retry rows and expansions stand in the lane ~lane, where nobody looks who looks for work.
-- `aim` is for whom one with a collapse key is: 'u:' and a user, 't:' and a topic, 'e:' and an endpoint's id, 'a' (all), or '*'
-- with `names`, which is ["users" or "endpoints", names or ids]. It is NULL without a key, and in what is older than this step.
ALTER TABLE notification ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE notification ADD COLUMN aim TEXT;
ALTER TABLE notification ADD COLUMN names TEXT;
CREATE INDEX notification_key ON notification (app, collapse_key) WHERE collapse_key IS NOT NULL;
CREATE INDEX notification_aim ON notification (app, collapse_key, aim) WHERE aim IS NOT NULL AND stopped = '';

-- What an app's notifications still have before them. By triggers, so that no statement can forget it.
CREATE TABLE load (app INTEGER PRIMARY KEY, deliveries INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO load SELECT app, sum(total - settled + expansions),
  sum(CASE WHEN finished_at IS NULL THEN length(content) ELSE 0 END) FROM notification GROUP BY app;
CREATE TRIGGER load_put AFTER INSERT ON notification BEGIN
  INSERT INTO load VALUES (NEW.app, NEW.total - NEW.settled + NEW.expansions, length(NEW.content))
    ON CONFLICT (app) DO UPDATE SET deliveries = deliveries + excluded.deliveries, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER load_change AFTER UPDATE OF total, settled, expansions ON notification BEGIN
  UPDATE load SET deliveries = deliveries + (NEW.total - NEW.settled + NEW.expansions)
    - (OLD.total - OLD.settled + OLD.expansions) WHERE app = NEW.app;
END;
CREATE TRIGGER load_finish AFTER UPDATE OF finished_at ON notification
  WHEN OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL BEGIN
  UPDATE load SET bytes = bytes - length(OLD.content) WHERE app = OLD.app;
END;
CREATE INDEX notification_oldest ON notification (app, due_at) WHERE finished_at IS NULL;

-- `crashes` and `part`: see `core.poison`. `worker` has or had the last lease, from `leased_at`; at `settled_at` a delivery ended
-- last. `created_after` and `leased_after` are the last decision before that, for the order of what has one time. A chunk that
-- was `held` stands in the lane `lane + 4` until its turn, which an expansion '["chunks",[]]' gives it.
ALTER TABLE chunk ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE chunk ADD COLUMN part INTEGER NOT NULL DEFAULT 0;
ALTER TABLE chunk ADD COLUMN worker TEXT;
ALTER TABLE chunk ADD COLUMN created_at REAL;
ALTER TABLE chunk ADD COLUMN leased_at REAL;
ALTER TABLE chunk ADD COLUMN settled_at REAL;
ALTER TABLE chunk ADD COLUMN created_after INTEGER;
ALTER TABLE chunk ADD COLUMN leased_after INTEGER;
ALTER TABLE chunk ADD COLUMN held INTEGER NOT NULL DEFAULT 0;

-- `holds`: the endpoint's other deliveries wait for this row's time too.
ALTER TABLE retry ADD COLUMN holds INTEGER NOT NULL DEFAULT 0;
CREATE INDEX retry_holds ON retry (endpoint, due_at) WHERE holds;
-- With what they wait for, so that those which are due can be counted from the index alone.
DROP INDEX retry_due;
CREATE INDEX retry_due ON retry (binding, lane, due_at, waiting);
DROP TABLE backlog;
CREATE TABLE backlog (
  notification INTEGER NOT NULL, binding INTEGER NOT NULL, waiting TEXT NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY (notification, binding, waiting)
) WITHOUT ROWID;
INSERT INTO backlog SELECT notification, binding, waiting, count(*) FROM retry GROUP BY 1, 2, 3;

-- What operators have asked of a binding.
CREATE TABLE control (binding INTEGER PRIMARY KEY, paused INTEGER NOT NULL, nudge INTEGER NOT NULL);
-- The gates that workers have closed. `until` is theirs; a row counts for a minute longer. `alarm` is 1 for a note with an alarm,
-- 2 for one without that came before the opening which an earlier alarm is owed.
CREATE TABLE gate (
  binding INTEGER NOT NULL, scope TEXT NOT NULL, name TEXT NOT NULL, waiting TEXT NOT NULL, reason TEXT NOT NULL,
  until REAL NOT NULL, alarm INTEGER NOT NULL, whole INTEGER NOT NULL, worker TEXT NOT NULL,
  PRIMARY KEY (binding, scope, name)
) WITHOUT ROWID;
-- What was decided and the other tables forget: JSON, see `decisions`. A binding's pauses stand under its number below zero.
CREATE TABLE decision (id INTEGER PRIMARY KEY, notification INTEGER NOT NULL, at REAL NOT NULL, data TEXT NOT NULL);
CREATE INDEX decision_of ON decision (notification);
"""

_SEALING = """
-- One row, where addresses are sealed: how (`plugin.SealRecord`); and up to which endpoint, while that is being done to all of them.
CREATE TABLE seal (id INTEGER PRIMARY KEY CHECK (id = 1), record TEXT NOT NULL, upto INTEGER NOT NULL);
"""

_TIMES = """
-- It expired before all of its audience was counted.
ALTER TABLE notification ADD COLUMN unexpanded INTEGER NOT NULL DEFAULT 0;
-- When the instant beside it was written: `due_at`, `ready_at` of a chunk that was given back, `until`. See `retiming`.
ALTER TABLE retry ADD COLUMN since REAL;
ALTER TABLE chunk ADD COLUMN since REAL;
ALTER TABLE gate ADD COLUMN since REAL;
"""

_AUDIT = """
-- With what the audit log (`core.audit`) hashes users. Lines of it and what else speaks of users, apart from the many notifications that finish.
ALTER TABLE feed ADD COLUMN secret BLOB;
UPDATE feed SET secret = randomblob(32);
CREATE INDEX event_audit ON event (id) WHERE substr(kind, 1, 6) = 'audit.';
CREATE INDEX event_rare ON event (app) WHERE kind <> 'notification.finished';
"""

_ACCESS = """
-- What callers present (`core.access`). `proof` lets nobody call.
CREATE TABLE access (
  id TEXT PRIMARY KEY, app INTEGER NOT NULL, kind TEXT NOT NULL, proof TEXT NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL,
  expires_at REAL, made_at REAL NOT NULL, used_at REAL
) WITHOUT ROWID;
"""

_ERASING = """
-- From here on `aim` is there without a collapse key too, but for topics and all. `wiped`: bytes of what was deleted are overwritten, since ever.
CREATE INDEX notification_stopped ON notification (app, aim) WHERE aim IS NOT NULL AND stopped <> '';
ALTER TABLE feed ADD COLUMN wiped INTEGER NOT NULL DEFAULT 0;
UPDATE feed SET wiped = NOT EXISTS (SELECT 1 FROM app);
"""

_WORDS = """
-- The words of every backend: `usr`, which is no keyword, `NOT deleted`, and `done` for `open = 0`, which the indexes of open chunks speak of.
ALTER TABLE endpoint RENAME COLUMN user TO usr;
ALTER TABLE subscription RENAME COLUMN user TO usr;
ALTER TABLE feed_item RENAME COLUMN user TO usr;
ALTER TABLE feed_state RENAME COLUMN user TO usr;
ALTER TABLE feed_look RENAME COLUMN user TO usr;
ALTER TABLE chunk ADD COLUMN done INTEGER GENERATED ALWAYS AS (open = 0) VIRTUAL;
DROP INDEX feed_item_expiry;
CREATE INDEX feed_item_expiry ON feed_item (expires_at) WHERE NOT deleted;
DROP INDEX feed_item_tombstone;
CREATE INDEX feed_item_tombstone ON feed_item (modified_at) WHERE deleted;
DROP INDEX feed_item_external;
CREATE UNIQUE INDEX feed_item_external ON feed_item (app, usr, external, coalesce(topic, '')) WHERE NOT deleted AND external IS NOT NULL;
DROP INDEX feed_item_grave;
CREATE INDEX feed_item_grave ON feed_item (app, usr, external) WHERE CAST(deleted AS int) = 1 AND digest IS NOT NULL;
DROP INDEX chunk_ready;
CREATE INDEX chunk_ready ON chunk (binding, lane, ready_at) WHERE NOT done;
DROP INDEX chunk_open;
CREATE INDEX chunk_open ON chunk (notification) WHERE NOT done;
"""

STEPS = (
    _FIRST,
    _SECOND,
    FEED,
    FLEET,
    _SEALING,
    _TIMES,
    DEVICES,
    LOOKS,
    _AUDIT,
    _ACCESS,
    JOINS,
    DIGESTS,
    _ERASING,
    _WORDS,
)
VERSION = len(STEPS)
