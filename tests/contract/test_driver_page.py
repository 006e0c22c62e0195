"""The page about a storage of one's own names each member of the driver, of the port and of the table of hot
statements."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from fanout.storage.sql.db import Db
from fanout.storage.sql.driver import Driver
from fanout.storage.sql.hot import Hot

PAGE = (Path(__file__).parents[2] / "docs" / "your-own-storage.md").read_text(encoding="utf-8")


def members(protocol: type) -> set[str]:
    return {name for name in {**protocol.__annotations__, **vars(protocol)} if not name.startswith("_")}


def named(section: str) -> list[str]:
    """The names in the first column of the section's table."""
    text = PAGE.partition(f"### {section}\n")[2].partition("\n##")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


@pytest.mark.parametrize(
    ("section", "there"),
    [
        ("The driver", members(Driver)),
        ("The port", members(Db)),
        ("Statements of its own", {field.name for field in fields(Hot)}),
    ],
)
def test_the_page_names_each_member_once(section: str, there: set[str]) -> None:
    found = named(section)
    assert sorted(found) == sorted(there)
