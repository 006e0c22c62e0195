"""The table in docs/metrics.md is the list of the metrics in the code. `python tests/contract/test_metrics_page.py`
writes it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import fanout
from fanout.engine.observing import observe
from fanout.metrics.families import families
from fanout.testing import ScriptedTransport

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
_TABLE = re.compile(r"(?<=<!-- metrics -->\n).*?(?=<!-- end -->)", re.DOTALL)


def table() -> str:
    async def view() -> list[str]:
        async with fanout.open(storage="memory:", transports={"pigeon": ScriptedTransport()}) as engine:
            found = families(observe(engine), None, None, "")
            return [f"| `{each.name}` | {each.kind} | {each.help} |" for each in found]

    return "\n".join(["| metric | type | meaning |", "|---|---|---|", *asyncio.run(view())]) + "\n"


def test_the_page_lists_every_metric() -> None:
    found = _TABLE.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None
    assert found[0] == table()


if __name__ == "__main__":
    PAGE.write_text(_TABLE.sub(lambda _: table(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
