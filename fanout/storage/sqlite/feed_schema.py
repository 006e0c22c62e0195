"""The tables of the feed: two steps of `schema.STEPS`."""

from __future__ import annotations

__all__ = ["DEVICES", "DIGESTS", "FEED", "JOINS", "LOOKS"]

FEED = """
-- What a device wants pushed: push, signal or none. Only submissions with an audience look at it.
ALTER TABLE endpoint ADD COLUMN receive TEXT NOT NULL DEFAULT 'push';

-- One row: the last number of a change; up to where tombstones have been deleted; whose cursors are its own.
CREATE TABLE feed (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL, floor INTEGER NOT NULL, identity INTEGER NOT NULL);
INSERT INTO feed VALUES (1, 0, 0, abs(random()) & 4294967295);

-- Of a device there is one subscription, whoever uses it. `endpoint` is 0 for one that only polls.
CREATE TABLE subscription (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  unsid TEXT NOT NULL UNIQUE, app INTEGER NOT NULL, user TEXT NOT NULL, device TEXT NOT NULL, platform TEXT NOT NULL,
  receive TEXT NOT NULL, endpoint INTEGER NOT NULL, created_at REAL NOT NULL, renewed_at REAL NOT NULL,
  expires_at REAL NOT NULL, UNIQUE (app, device)
);
CREATE INDEX subscription_user ON subscription (app, user);
CREATE INDEX subscription_endpoint ON subscription (endpoint) WHERE endpoint > 0;
CREATE INDEX subscription_expiry ON subscription (app, expires_at);

-- An item of everybody has the user ''; with a topic it is of those whose endpoints carry that tag.
CREATE TABLE feed_item (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  app INTEGER NOT NULL, user TEXT NOT NULL, topic TEXT, uuid TEXT NOT NULL, external TEXT, grp TEXT, priority TEXT NOT NULL,
  content TEXT NOT NULL, created_at REAL NOT NULL, modified_at REAL, expires_at REAL NOT NULL, display_until REAL,
  fallback_at REAL, read INTEGER NOT NULL, action TEXT NOT NULL, deleted INTEGER NOT NULL, writer INTEGER NOT NULL,
  seq INTEGER NOT NULL
);
CREATE INDEX feed_item_feed ON feed_item (app, user, seq);
CREATE INDEX feed_item_uuid ON feed_item (app, user, uuid);
CREATE INDEX feed_item_seq ON feed_item (seq);
CREATE INDEX feed_item_expiry ON feed_item (expires_at) WHERE deleted = 0;
CREATE INDEX feed_item_tombstone ON feed_item (modified_at) WHERE deleted = 1;
CREATE UNIQUE INDEX feed_item_external ON feed_item (app, user, external, coalesce(topic, ''))
  WHERE deleted = 0 AND external IS NOT NULL;

-- What one user did with an item of everybody: from then on she reads it from here.
CREATE TABLE feed_state (
  item INTEGER NOT NULL, app INTEGER NOT NULL, user TEXT NOT NULL, read INTEGER NOT NULL, action TEXT NOT NULL,
  deleted INTEGER NOT NULL, modified_at REAL NOT NULL, writer INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (item, user)
) WITHOUT ROWID;
CREATE INDEX feed_state_feed ON feed_state (app, user, seq);
CREATE INDEX feed_state_seq ON feed_state (seq);

-- Devices that have an item whose fallback is not due yet; and the item that a scheduled fallback goes with, as it was posted.
CREATE TABLE feed_seen (item INTEGER NOT NULL, subscription INTEGER NOT NULL, PRIMARY KEY (item, subscription)) WITHOUT ROWID;
CREATE TABLE feed_fallback (notification INTEGER PRIMARY KEY, item INTEGER NOT NULL, seq INTEGER NOT NULL);

-- Erased users, by digest: a cursor from before the number is worth nothing.
CREATE TABLE feed_erased (
  app INTEGER NOT NULL, digest BLOB NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL, PRIMARY KEY (app, digest)
) WITHOUT ROWID;
"""

DEVICES = """
-- A device's name is its user's own. The version before looks by (app, device), which the key begins with, and may find another user's row:
-- it ends that one, as it always did, and enters its own user's anew, which then takes the place of hers.
CREATE TABLE subscription_scoped (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  unsid TEXT NOT NULL UNIQUE, app INTEGER NOT NULL, user TEXT NOT NULL, device TEXT NOT NULL, platform TEXT NOT NULL,
  receive TEXT NOT NULL, endpoint INTEGER NOT NULL, created_at REAL NOT NULL, renewed_at REAL NOT NULL,
  expires_at REAL NOT NULL, UNIQUE (app, device, user) ON CONFLICT REPLACE
);
INSERT INTO subscription_scoped (id, unsid, app, user, device, platform, receive, endpoint, created_at, renewed_at, expires_at)
  SELECT id, unsid, app, user, device, platform, receive, endpoint, created_at, renewed_at, expires_at FROM subscription;
DELETE FROM sqlite_sequence WHERE name = 'subscription_scoped';
INSERT INTO sqlite_sequence SELECT 'subscription_scoped', seq FROM sqlite_sequence WHERE name = 'subscription';
DROP TABLE subscription;
ALTER TABLE subscription_scoped RENAME TO subscription;
CREATE INDEX subscription_user ON subscription (app, user);
CREATE INDEX subscription_endpoint ON subscription (endpoint) WHERE endpoint > 0;
CREATE INDEX subscription_expiry ON subscription (app, expires_at);
"""

LOOKS = """
-- Up to which item a user has seen her feed, by its number; and the number of that change.
CREATE TABLE feed_look (
  app INTEGER NOT NULL, user TEXT NOT NULL, seen INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (app, user)
) WITHOUT ROWID;
CREATE INDEX feed_look_seq ON feed_look (seq);
"""

JOINS = """
-- One that is scheduled takes the content of what joins it (`Submission.joins`).
CREATE TRIGGER load_content AFTER UPDATE OF content ON notification WHEN OLD.finished_at IS NULL BEGIN
  UPDATE load SET bytes = bytes + length(NEW.content) - length(OLD.content) WHERE app = NEW.app;
END;
"""

DIGESTS = """
-- Of an item with its sender's id: what its post said (`core.feed.post_digest`). It stays when the user deletes the item. And the ids of
-- the notifications that pushed an item, with spaces between them.
ALTER TABLE feed_item ADD COLUMN digest TEXT;
ALTER TABLE feed_item ADD COLUMN pushes TEXT;
CREATE INDEX feed_item_grave ON feed_item (app, user, external) WHERE deleted = 1 AND digest IS NOT NULL;
CREATE INDEX feed_fallback_item ON feed_fallback (item);
"""
