"""The remains of deleted rows on disk, and how they go.

`secure_delete` overwrites deleted rows, and the log is moved into the file and cut to nothing. One thing is left: where
SQLite shares out the rows of full pages anew (`rebuildPage` in its btree.c), the old bytes in the gap of a page stay
there. So the gaps are looked through for erased texts, and only where a part of one is found the file is written anew
(VACUUM).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import apsw

from fanout.storage.sqlite.db import Db

__all__ = ["cut_log", "gaps", "look", "rewrite", "settled", "size", "stale"]

_BTREE = {2: 12, 5: 12, 10: 8, 13: 8}
"""The kinds of b-tree pages, with the length of their headers (SQLite file format, section 1.6)."""
_FIRST = 100
"""Bytes of the file's header, which the first page begins with."""
_RUN = 16
"""Bytes in sequence by which a text is known again; of a shorter one, all."""


def gaps(data: bytes, page: int, *, first: bool = False) -> Iterator[bytes]:
    """The bytes between the cell pointers and the cells of the b-tree pages in `data`, pages of `page` bytes, where
    they are not zero."""
    for start in range(0, len(data) - page + 1, page):
        at = start + _FIRST if first and start == 0 else start
        header = _BTREE.get(data[at])
        if header is None:
            continue
        cells = int.from_bytes(data[at + 3 : at + 5], "big")
        content = int.from_bytes(data[at + 5 : at + 7], "big") or 65_536
        gap = data[at + header + 2 * cells : start + min(content, page)].strip(b"\0")
        if len(gap) > 2:  # a pointer to a cell that has gone is no text
            yield gap


def stale(gap: bytes, texts: Iterable[bytes]) -> bool:
    """Whether a part of a text stands in it."""
    for text in texts:
        if len(text) < _RUN:
            if text in gap:
                return True
        elif any(text[at : at + _RUN] in gap for at in range(0, len(text) - _RUN + 1, _RUN // 2)):
            return True
    return False


def cut_log(db: Db) -> bool:
    """Move the log into the file and cut it to nothing; False while another connection reads in it."""
    try:
        ((busy, _, _),) = db.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except (apsw.BusyError, apsw.LockedError):
        return False
    return not busy


def size(db: Db) -> int:
    """Bytes of the file."""
    return int(db.value("PRAGMA page_count")) * int(db.value("PRAGMA page_size"))


def settled(db: Db) -> bool:
    """Whether deleted rows have been overwritten since the file was made."""
    return bool(db.value("SELECT wiped FROM feed"))


def look(db: Db, start: int, length: int, texts: Sequence[bytes]) -> bool:
    """Whether something of these texts is left in the gaps of this part of the file, which begins and ends with a
    page."""
    page = int(db.value("PRAGMA page_size"))
    _, data = db.connection.read("main", 0, start, length)
    return any(stale(gap, texts) for gap in gaps(data, page, first=start == 0))


def rewrite(db: Db) -> None:
    """Write the file anew, without deleted rows. The copy on the way is a file: it may be larger than memory."""
    connection = db.connection
    connection.execute("UPDATE feed SET wiped = 1")
    connection.pragma("temp_store", "FILE")
    try:
        connection.execute("VACUUM")
    finally:
        connection.pragma("temp_store", "MEMORY")
