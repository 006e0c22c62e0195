-- SQLite dump (by APSW 3.54.1.0)
-- SQLite version 3.54.1
-- Date: Sat Nov 21 20:43:37 2026
-- Tables like: (All)
-- Database: /tmp/v1/v1.db
-- User: root @ vm

-- The values of various per-database settings
PRAGMA page_size=4096;
-- PRAGMA encoding='UTF-8';
-- PRAGMA auto_vacuum=NONE;
-- PRAGMA max_page_count=4294967294;

BEGIN TRANSACTION;

-- Table  app
DROP TABLE IF EXISTS app;
CREATE TABLE app (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
INSERT INTO app VALUES(1,'default');

-- Table  audience
DROP TABLE IF EXISTS audience;
CREATE TABLE audience (chunk INTEGER PRIMARY KEY, ids BLOB NOT NULL);
INSERT INTO audience VALUES(1,X'010000000000000005000000000000000900000000000000');
INSERT INTO audience VALUES(2,X'0200000000000000030000000000000004000000000000000600000000000000');
INSERT INTO audience VALUES(3,X'070000000000000008000000000000000A000000000000000B00000000000000');
INSERT INTO audience VALUES(4,X'0C00000000000000');
INSERT INTO audience VALUES(5,X'0200000000000000030000000000000004000000000000000600000000000000');
INSERT INTO audience VALUES(6,X'0D00000000000000');
INSERT INTO audience VALUES(7,X'02000000000000000300000000000000');

-- Table  backlog
DROP TABLE IF EXISTS backlog;
CREATE TABLE backlog (
  notification INTEGER NOT NULL, waiting TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (notification, waiting)
) WITHOUT ROWID;
INSERT INTO backlog VALUES(1,'backoff',2);

-- Table  binding
DROP TABLE IF EXISTS binding;
CREATE TABLE binding (
  id INTEGER PRIMARY KEY, app INTEGER NOT NULL, name TEXT NOT NULL, UNIQUE (app, name)
);
INSERT INTO binding VALUES(1,1,'fcm');
INSERT INTO binding VALUES(2,1,'apns');

-- Table  chunk
DROP TABLE IF EXISTS chunk;
CREATE TABLE chunk (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  notification INTEGER NOT NULL, binding INTEGER NOT NULL, lane INTEGER NOT NULL, attempt INTEGER NOT NULL,
  ready_at REAL NOT NULL, open INTEGER NOT NULL, owner TEXT, epoch INTEGER NOT NULL, waiting TEXT NOT NULL,
  low INTEGER NOT NULL, high INTEGER NOT NULL, states BLOB NOT NULL
);
INSERT INTO chunk VALUES(1,1,1,1,1,1800000000.25,3,NULL,0,'ready',1,9,X'000000');
INSERT INTO chunk VALUES(2,1,2,1,1,1800000030.25,0,NULL,1,'ready',2,6,X'0102FFFF');
INSERT INTO chunk VALUES(3,1,2,1,1,1800000090.25,3,NULL,1,'gate',7,11,X'01000000');
INSERT INTO chunk VALUES(4,1,2,1,1,1800000030.25,1,'w1',1,'ready',12,12,X'00');
INSERT INTO chunk VALUES(5,2,2,2,1,1800000002.25,4,NULL,0,'ready',2,6,X'00000000');
INSERT INTO chunk VALUES(6,5,2,0,1,1800000033.25,0,NULL,1,'ready',13,13,X'01');
INSERT INTO chunk VALUES(7,6,2,0,1,1800000000.25,2,NULL,0,'ready',2,3,X'0000');
-- Triggers and indices on  chunk
CREATE INDEX chunk_open ON chunk (notification) WHERE open > 0;
CREATE INDEX chunk_range ON chunk (notification, low, high);
CREATE INDEX chunk_ready ON chunk (binding, lane, ready_at) WHERE open > 0;

-- Table  endpoint
DROP TABLE IF EXISTS endpoint;
CREATE TABLE endpoint (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  app INTEGER NOT NULL, binding INTEGER NOT NULL, user TEXT NOT NULL, digest BLOB NOT NULL,
  kind TEXT NOT NULL, grp TEXT NOT NULL, platform TEXT NOT NULL, tags TEXT NOT NULL,
  generation INTEGER NOT NULL, registered_at REAL NOT NULL, expires_at REAL,
  state TEXT NOT NULL, state_at REAL, reason TEXT NOT NULL,
  address TEXT NOT NULL, identity TEXT NOT NULL
);
INSERT INTO endpoint VALUES(1,1,1,'alice',X'684B05239BF012FD13C5D64841EDEF58','device','g','','["news"]',1,1800000000.25,NULL,'active',NULL,'','token-0','id-0');
INSERT INTO endpoint VALUES(2,1,2,'alice',X'53C507D05B826BCC0EF01E54799ACA72','device','g','','["news"]',1,1800000000.25,NULL,'active',NULL,'','token-1','id-1');
INSERT INTO endpoint VALUES(3,1,2,'alice',X'C42F9E8B5A4D57975ED0E95690F08FAF','device','g','','["news"]',1,1800000000.25,NULL,'active',NULL,'','token-2','id-2');
INSERT INTO endpoint VALUES(4,1,2,'alice',X'437FDA121DB98406813D9048B722ACE8','device','g','','["news"]',1,1800000000.25,NULL,'active',NULL,'','token-3','id-3');
INSERT INTO endpoint VALUES(5,1,1,'alice',X'F4D6FC18931A92BE5718B136F9CD1AA5','device','g','','["news"]',1,1800000000.25,NULL,'active',NULL,'','token-4','id-4');
INSERT INTO endpoint VALUES(6,1,2,'alice',X'177A1BA93706EE0E293F11474927ADDF','device','g','','["news"]',1,1800000000.25,NULL,'active',NULL,'','token-5','id-5');
INSERT INTO endpoint VALUES(7,1,2,'alice',X'E2E4688A94B9FF17DF6EE24511232287','device','g','','["news"]',1,1800000000.25,NULL,'active',NULL,'','token-6','id-6');
INSERT INTO endpoint VALUES(8,1,2,'alice',X'8BB22806C41003D64F035D63CFB82C36','device','g','','["news"]',1,1800000000.25,NULL,'active',NULL,'','token-7','id-7');
INSERT INTO endpoint VALUES(9,1,1,'alice',X'E11CA745D9F7033274561AE4FCDEEDBA','device','g','','["news"]',1,1800000000.25,NULL,'active',NULL,'','token-8','id-8');
INSERT INTO endpoint VALUES(10,1,2,'alice',X'94F771793B1AC95F867D2B4AD0F48F5B','device','g','','["news"]',1,1800000000.25,NULL,'active',NULL,'','token-9','id-9');
INSERT INTO endpoint VALUES(11,1,2,'alice',X'F93F3C48714F7DD84A3CBF699D951D5E','device','g','','["news"]',1,1800000000.25,NULL,'active',NULL,'','token-10','id-10');
INSERT INTO endpoint VALUES(12,1,2,'alice',X'53670BEAF233B43D8AA7F21C64C7DC8A','device','g','','["news"]',1,1800000000.25,NULL,'active',NULL,'','token-11','id-11');
INSERT INTO endpoint VALUES(13,1,2,'',X'EFC023256D133899B947E2E76E3C0756','device','g','','[]',1,1800000003.25,NULL,'active',NULL,'','token-x','id-x');
-- Triggers and indices on  endpoint
CREATE UNIQUE INDEX endpoint_active ON endpoint (binding, digest) WHERE state = 'active';
CREATE INDEX endpoint_audience ON endpoint (binding, id) WHERE state = 'active' AND user <> '';
CREATE INDEX endpoint_expiry ON endpoint (expires_at) WHERE state = 'active' AND expires_at IS NOT NULL;
CREATE INDEX endpoint_former ON endpoint (binding, digest) WHERE state <> 'active';
CREATE INDEX endpoint_quarantine ON endpoint (state_at) WHERE state <> 'active';
CREATE INDEX endpoint_user ON endpoint (app, user) WHERE user <> '';

-- Table  endpoint_tag
DROP TABLE IF EXISTS endpoint_tag;
CREATE TABLE endpoint_tag (
  binding INTEGER NOT NULL, tag TEXT NOT NULL, endpoint INTEGER NOT NULL, PRIMARY KEY (binding, tag, endpoint)
) WITHOUT ROWID;
INSERT INTO endpoint_tag VALUES(1,'news',1);
INSERT INTO endpoint_tag VALUES(1,'news',5);
INSERT INTO endpoint_tag VALUES(1,'news',9);
INSERT INTO endpoint_tag VALUES(2,'news',2);
INSERT INTO endpoint_tag VALUES(2,'news',3);
INSERT INTO endpoint_tag VALUES(2,'news',4);
INSERT INTO endpoint_tag VALUES(2,'news',6);
INSERT INTO endpoint_tag VALUES(2,'news',7);
INSERT INTO endpoint_tag VALUES(2,'news',8);
INSERT INTO endpoint_tag VALUES(2,'news',10);
INSERT INTO endpoint_tag VALUES(2,'news',11);
INSERT INTO endpoint_tag VALUES(2,'news',12);

-- Table  event
DROP TABLE IF EXISTS event;
CREATE TABLE event (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, app INTEGER NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL
);
INSERT INTO event VALUES(1,1800000003.25,1,'notification.finished','{"notification":"00000000-0000-7000-8000-000000000004","state":"done","total":0,"counts":{"pending":0,"accepted":0,"gone":0,"rejected":0,"expired":0,"cancelled":0,"superseded":0,"dead":0}}');
INSERT INTO event VALUES(2,1800000003.25,1,'notification.finished','{"notification":"00000000-0000-7000-8000-000000000005","state":"done","total":1,"counts":{"pending":0,"accepted":1,"gone":0,"rejected":0,"expired":0,"cancelled":0,"superseded":0,"dead":0}}');

-- Table  expansion
DROP TABLE IF EXISTS expansion;
CREATE TABLE expansion (
  id INTEGER PRIMARY KEY,
  notification INTEGER NOT NULL, app INTEGER NOT NULL, binding INTEGER NOT NULL, lane INTEGER NOT NULL,
  due_at REAL NOT NULL, cursor INTEGER NOT NULL, high INTEGER NOT NULL, target TEXT NOT NULL
);
INSERT INTO expansion VALUES(1,2,1,2,2,1800000000.25,6,12,'["topic",["news"]]');
INSERT INTO expansion VALUES(2,2,1,1,2,1800000000.25,0,12,'["topic",["news"]]');
INSERT INTO expansion VALUES(3,3,1,0,1,1800000500.25,0,0,'["user",["alice"]]');
-- Triggers and indices on  expansion
CREATE INDEX expansion_due ON expansion (app, binding, lane, due_at);
CREATE INDEX expansion_of ON expansion (notification);

-- Table  idempotency
DROP TABLE IF EXISTS idempotency;
CREATE TABLE idempotency (
  app INTEGER NOT NULL, key TEXT NOT NULL, uuid TEXT NOT NULL, digest BLOB NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (app, key)
) WITHOUT ROWID;
INSERT INTO idempotency VALUES(1,'k','00000000-0000-7000-8000-000000000001',X'',1800000000.25);
-- Triggers and indices on  idempotency
CREATE INDEX idempotency_at ON idempotency (at);

-- Table  notification
DROP TABLE IF EXISTS notification;
CREATE TABLE notification (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  uuid TEXT NOT NULL UNIQUE, app INTEGER NOT NULL, lane INTEGER NOT NULL, repeat TEXT NOT NULL,
  accepted_at REAL NOT NULL, due_at REAL NOT NULL, expires_at REAL NOT NULL,
  total INTEGER NOT NULL, settled INTEGER NOT NULL, expansions INTEGER NOT NULL, attempts INTEGER NOT NULL,
  stopped TEXT NOT NULL, finished_at REAL, collapse_key TEXT, target_key BLOB, content BLOB NOT NULL
);
INSERT INTO notification VALUES(1,'00000000-0000-7000-8000-000000000001',1,1,'prefer_delivery',1800000000.25,1800000000.25,1800003600.25,12,3,0,5,'',NULL,'c',X'380DC20E1C5EDDBA55BF94B31A5905F1',X'7B227469746C65223A2268656C6C6F227D');
INSERT INTO notification VALUES(2,'00000000-0000-7000-8000-000000000002',1,2,'prefer_delivery',1800000000.25,1800000000.25,1800003600.25,4,0,2,0,'',NULL,NULL,NULL,X'7B227469746C65223A2268656C6C6F227D');
INSERT INTO notification VALUES(3,'00000000-0000-7000-8000-000000000003',1,1,'prefer_delivery',1800000000.25,1800000500.25,1800004100.25,0,0,1,0,'',NULL,NULL,NULL,X'7B227469746C65223A2268656C6C6F227D');
INSERT INTO notification VALUES(4,'00000000-0000-7000-8000-000000000004',1,1,'prefer_delivery',1800000000.25,1800000000.25,1800003600.25,0,0,0,0,'',1800000003.25,NULL,NULL,X'7B227469746C65223A2268656C6C6F227D');
INSERT INTO notification VALUES(5,'00000000-0000-7000-8000-000000000005',1,0,'prefer_delivery',1800000000.25,1800000000.25,1800003600.25,1,1,0,1,'',1800000003.25,NULL,NULL,X'7B227469746C65223A2268656C6C6F227D');
INSERT INTO notification VALUES(6,'00000000-0000-7000-8000-000000000006',1,0,'prefer_delivery',1800000000.25,1800000000.25,1800003600.25,2,0,0,0,'',NULL,NULL,NULL,X'7B227469746C65223A2268656C6C6F227D');
-- Triggers and indices on  notification
CREATE INDEX notification_collapse ON notification (app, collapse_key, target_key)
  WHERE collapse_key IS NOT NULL AND finished_at IS NULL;
CREATE INDEX notification_expiry ON notification (expires_at) WHERE finished_at IS NULL;
CREATE INDEX notification_finished ON notification (finished_at) WHERE finished_at IS NOT NULL;

-- Table  retry
DROP TABLE IF EXISTS retry;
CREATE TABLE retry (
  notification INTEGER NOT NULL, endpoint INTEGER NOT NULL, binding INTEGER NOT NULL, lane INTEGER NOT NULL,
  due_at REAL NOT NULL, attempt INTEGER NOT NULL, waiting TEXT NOT NULL, reason TEXT NOT NULL,
  PRIMARY KEY (notification, endpoint)
) WITHOUT ROWID;
INSERT INTO retry VALUES(1,4,2,1,1800000060.25,2,'backoff','busy');
INSERT INTO retry VALUES(1,6,2,1,1800000061.75,2,'backoff','busy');
-- Triggers and indices on  retry
CREATE INDEX retry_due ON retry (binding, lane, due_at);

-- Table  tally
DROP TABLE IF EXISTS tally;
CREATE TABLE tally (
  notification INTEGER NOT NULL, code INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY (notification, code)
) WITHOUT ROWID;
INSERT INTO tally VALUES(1,1,'accepted','',2);
INSERT INTO tally VALUES(1,2,'rejected','BadTopic',1);
INSERT INTO tally VALUES(5,1,'accepted','',1);

-- For primary key autoincrements the next id to use is stored in
-- sqlite_sequence
DELETE FROM main.sqlite_sequence WHERE name='chunk';
INSERT INTO main.sqlite_sequence VALUES ('chunk', 7);
DELETE FROM main.sqlite_sequence WHERE name='endpoint';
INSERT INTO main.sqlite_sequence VALUES ('endpoint', 13);
DELETE FROM main.sqlite_sequence WHERE name='event';
INSERT INTO main.sqlite_sequence VALUES ('event', 2);
DELETE FROM main.sqlite_sequence WHERE name='notification';
INSERT INTO main.sqlite_sequence VALUES ('notification', 6);

-- Database header
pragma user_version=1;
pragma application_id=1178685007;

COMMIT TRANSACTION;
