"""An engine in memory with a scripted transport, and what a scrape of it says, read by Prometheus's own parser."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fanout.bootstrap import SystemClock
from fanout.engine import Engine, EngineOptions
from fanout.plugin import Policy, StorageContext
from fanout.registry import Registry
from fanout.testing.scripted import Script, ScriptedTransport

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Scrape:
    """The samples of one scrape."""

    def __init__(self, page: bytes) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(page.decode())}
        self.samples: Samples = {}
        for family in self.families.values():
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self.samples, f"{key} is there twice"
                self.samples[key] = sample.value

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name that have these labels."""
        found = [
            value for (own, have), value in self.samples.items() if own == name and labels.items() <= dict(have).items()
        ]
        assert found, f"{name} {labels} is not there"
        return sum(found)


@pytest.fixture
def scrape() -> type[Scrape]:
    return Scrape


@pytest.fixture
def running() -> Callable[..., object]:
    @asynccontextmanager
    async def run(script: Script | None = None, **policy: float) -> AsyncIterator[Engine]:
        storage = Registry().make_storage("memory:", StorageContext(clock=SystemClock()))
        transport = ScriptedTransport(script) if script else ScriptedTransport()
        values: dict[str, float] = {"checkpoint": 0.001, "probe": 60.0, **policy}
        engine = Engine(
            storage,
            {("default", "push"): transport, ("shop", "push"): ScriptedTransport()},
            EngineOptions(
                clock=SystemClock(),
                rng=random.Random(1),
                policy=Policy(**values),  # type: ignore[arg-type]
            ),
        )
        async with engine:
            yield engine

    return run
