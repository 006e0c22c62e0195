"""The one statement by which a submission enters the inbox, and the meaning of its answer. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fanout.core.codec import encode_envelope
from fanout.core.given import text
from fanout.core.records import Submission
from fanout.errors import Conflict, UsageError

__all__ = ["Answer", "Statement"]

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_HOLE = re.compile(r"\{(\w+)\}")

_TEXTS = ("id", "app", "key", "digest", "envelope", "content")
_NUMBERS = ("accepted_at", "due_at", "expires_at", "keys_since")

_SQL = f"""
WITH given AS (
  SELECT {", ".join(f"CAST({{{name}}} AS text) AS {name}" for name in _TEXTS)},
    {", ".join(f"CAST({{{name}}} AS double precision) AS {name}" for name in _NUMBERS)}
), known AS (
  SELECT i.uuid, encode(i.digest, 'hex') AS digest FROM given g JOIN SCHEMA.app a ON a.name = g.app
  JOIN SCHEMA.idempotency i ON i.app = a.id AND i.key = g.key AND i.at >= g.keys_since
  UNION ALL (
    SELECT b.uuid, encode(b.digest, 'hex') FROM given g JOIN SCHEMA.inbox b ON b.app = g.app AND b.key = g.key
    ORDER BY b.id LIMIT 1
  )
), made AS (
  INSERT INTO SCHEMA.inbox (uuid, app, key, digest, envelope, content, accepted_at, due_at, expires_at)
  SELECT id, app, key, decode(digest, 'hex'), envelope, content, accepted_at, due_at, expires_at FROM given
  WHERE NOT EXISTS (SELECT 1 FROM known) RETURNING uuid
)
SELECT uuid, digest, pg_logical_emit_message(true, 'fanout', '') IS NOT NULL FROM known
UNION ALL SELECT uuid, '', false FROM made LIMIT 1
"""
"""A replay writes to the log, without a row: the caller's COMMIT then waits for the standbys that it would have waited
for the first time.

A key is looked for among what was put and what is in the inbox, as far as this transaction sees it. That no two
transactions enter one key at once is not prevented: a unique index would make one wait for the end of the other, and
two of them deadlock. The later is a replay.

The caller's clock may be off: a row has the database's time too, and the worker that takes it goes by that.
"""


class Answer(NamedTuple):
    """The id that the notification has, and whether that is an earlier one's with the same idempotency key."""

    id: str
    replayed: bool


@dataclass(frozen=True, slots=True)
class Statement:
    """The statement for one submission, whose `feed` and `audience` play no part. A `due_at` other than `accepted_at`
    is a wish for that time; of the other times only the differences count.

    `schema` is where the tables stand. `keys_since` (UNIX seconds) is from when on idempotency keys count. Raises
    `UsageError` for explicit addresses and a schema that is no name.
    """

    submission: Submission
    schema: str
    keys_since: float
    values: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.schema, str) or not _SCHEMA.fullmatch(self.schema):
            raise UsageError(f"schema is {self.schema!r}: write small letters, digits and underscores.")
        submission = self.submission
        text("app", submission.app)
        texts = (submission.id, submission.app, submission.idempotency_key, submission.digest.hex())
        numbers = (submission.accepted_at, submission.due_at, submission.expires_at, self.keys_since)
        given = (*texts, encode_envelope(submission), submission.content.decode(), *numbers)
        object.__setattr__(self, "values", dict(zip((*_TEXTS, *_NUMBERS), given, strict=True)))

    def sql(self, hole: Callable[[int, str], str]) -> str:
        """The text of the statement.

        Args:
            hole: The function that writes the place of a value, from its number (from 1) and its name: each has one
                place.

        Returns:
            The text.
        """
        numbers = {name: number for number, name in enumerate(self.values, 1)}
        text = _SQL.replace("SCHEMA", self.schema)
        return _HOLE.sub(lambda found: hole(numbers[found[1]], found[1]), text)

    def answer(self, row: Sequence[Any] | None) -> Answer:
        """The meaning of the row that came back.

        Args:
            row: The row that the statement returned.

        Returns:
            The id, and whether it is an earlier notification's.

        Raises:
            Conflict: The idempotency key belongs to another request.
        """
        assert row is not None, "either what was known is answered, or what was made"
        id, digest, replayed = row
        if replayed and digest != self.submission.digest.hex():
            raise Conflict(
                f"The idempotency key {self.submission.idempotency_key!r} belongs to {id}, which was another request; use a new key."
            )
        return Answer(id, bool(replayed))
