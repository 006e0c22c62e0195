"""A plugin of pytest: tests in an order drawn from `TESTS_ORDER`, and their outcomes written to `TESTS_OUTCOMES`, a
JSON line for each."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable

import pytest

__all__ = ["drawn", "pytest_collection_modifyitems", "pytest_configure"]


def drawn(tests: Iterable[str], seed: int) -> list[str]:
    """Files in random order, and the tests of each; the same for the same seed."""
    rng = random.Random(seed)
    files: dict[str, list[str]] = {}
    for test in sorted(tests):
        files.setdefault(test.partition("::")[0], []).append(test)
    order = sorted(files)
    rng.shuffle(order)
    for file in order:
        rng.shuffle(files[file])
    return [test for file in order for test in files[file]]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    found = {item.nodeid: item for item in items}
    items[:] = [found[test] for test in drawn(found, int(os.environ["TESTS_ORDER"]))]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Outcomes(os.environ["TESTS_OUTCOMES"]))


class _Outcomes:
    def __init__(self, path: str) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The call's own outcome, or that of a preparation that failed or skipped, or of a clearing away that
        failed."""
        if report.when != "call" and report.outcome == "passed":
            return
        outcome = report.outcome if report.when == "call" or report.skipped else f"error in {report.when}"
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = crash.message.partition("\n")[0] if crash is not None and report.failed else ""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps([report.nodeid, outcome, reason]) + "\n")
