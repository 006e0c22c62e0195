"""Each key of the configuration has a row in a table of a page, with its default."""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import pytest

from fanout.config import IssuerSettings, Limits
from fanout.core.duration import parse_duration
from fanout.core.policy import BacklogLimits, Policy, Retention
from fanout_apns.settings import ApnsSettings
from fanout_fcm.settings import FcmSettings
from fanout_webpush.settings import WebPushSettings
from fanout_wns.settings import WnsSettings

ROOT = Path(__file__).parents[2]
CONFIGURATION, SERVICE = "docs/configuration.md", "docs/service.md"
TABLES: dict[str, tuple[str, type[Any]]] = {
    "[policy]": (CONFIGURATION, Policy),
    "[retention]": (CONFIGURATION, Retention),
    "[backlog]": (CONFIGURATION, BacklogLimits),
    "[[service.issuers]]": (SERVICE, IssuerSettings),
    "[service.limits]": (SERVICE, Limits),
}
"""The head of each table, its page, and the settings that it lists."""
TRANSPORTS = {"apns": ApnsSettings, "fcm": FcmSettings, "webpush": WebPushSettings, "wns": WnsSettings}
_ROW = re.compile(r"^\| (`[^|]*`) \| ([^|]*)\|", re.MULTILINE)


def rows(text: str) -> dict[str, str]:
    """The defaults of a table of settings by the settings' names: a row may have several, with commas between."""
    found: dict[str, str] = {}
    for names, said in _ROW.findall(text):
        keys = re.findall(r"`(\w+)`", names)
        values = said.strip().split(", ") if len(keys) > 1 and ", " in said else [said.strip()] * len(keys)
        found |= dict(zip(keys, values, strict=True))
    return found


def table(head: str) -> dict[str, str]:
    text = (ROOT / TABLES[head][0]).read_text(encoding="utf-8")
    return rows(text.partition(f"| `{head}` |")[2].partition("\n\n")[0])


def right(said: str, field: Field[Any]) -> bool:
    default = field.default
    if isinstance(default, tuple) and default and all(isinstance(each, str) for each in default):
        return re.findall(r'"([^"]*)"', said) == list(default)
    if default is MISSING or default is None or default in ("", ()):
        return said in ("", "none", "no bound")
    if isinstance(default, float | int):
        if days := re.fullmatch(r"(\d+) days?", said):
            return parse_duration(f"{days[1]}d") == default
        return float(said) == default
    return bool(said == f"`{default}`")


@pytest.mark.parametrize("head", TABLES)
def test_each_key_has_a_row_with_its_default(head: str) -> None:
    described, keys = table(head), {field.name: field for field in fields(TABLES[head][1])}
    assert described.keys() == keys.keys()
    assert not {name: said for name, said in described.items() if not right(said, keys[name])}


@pytest.mark.parametrize("name", TRANSPORTS)
def test_each_setting_of_a_transport_has_a_row(name: str) -> None:
    text = (ROOT / f"transports/fanout_{name}/README.md").read_text(encoding="utf-8")
    described = {
        key for names in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for key in re.findall(r"`(\w+)`", names)
    }
    described |= {key.removesuffix("_file") for key in described}
    assert not {field.name for field in fields(TRANSPORTS[name]) if field.init} - described
