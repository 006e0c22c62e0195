"""The examples of a transport whose addresses are URLs, and of its simulator, as a stranger runs them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import fanout
from fanout.testing.transport import CHECKS, SILENT
from tests.contract.pages import EXAMPLES
from tests.contract.test_readme import PYTEST, install

pytestmark = pytest.mark.anyio

WEBHOOK, SIMULATOR, CONTRACT = (EXAMPLES[name] for name in ("webhook", "webhooksimulator", "webhookcontract"))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the installed transport and its simulator."""
    install(tmp_path, "webhook", "my_webhook", WEBHOOK)
    (tmp_path / "my_webhook_simulator.py").write_text(SIMULATOR)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


async def test_a_push_goes_to_the_simulator_and_a_dead_address_is_gone(site: Path) -> None:
    names: dict[str, type] = {}
    exec(SIMULATOR, names)
    async with (
        names["WebhookSimulator"]() as simulator,
        fanout.open(storage="memory:", transports={"webhook": simulator.settings()}) as engine,
    ):
        for behaviour in simulator.behaviours:
            address = simulator.address(1, behaviour)
            await engine.endpoints.register(user="alice", binding="webhook", address=address)
        with pytest.raises(fanout.AddressInvalid):
            await engine.endpoints.register(user="alice", binding="webhook", address="https://169.254.169.254/x")
        receipt = await engine.send(fanout.Notification(title="Hi"), "user:alice")
        counts = (await receipt.wait(timeout=20)).counts
    assert (counts["accepted"], counts["gone"], simulator.counters.accepted) == (1, 1, 1)


async def test_the_laws_hold_for_the_webhook(site: Path) -> None:
    names: dict[str, type] = {}
    exec(CONTRACT, names)
    for name, check in CHECKS.items():
        if name not in SILENT:
            await check(names["webhook"])


@pytest.mark.long("all laws but those that wait for a timeout run in every run")
def test_the_suite_names_a_law_that_the_webhook_breaks(site: Path) -> None:
    (site / "test_webhook.py").write_text(CONTRACT)
    words = [*PYTEST, "test_webhook.py"]
    for code, said in ((WEBHOOK, "1 passed"), (WEBHOOK.replace("case 400: ", "case 499: "), "Broken law: 400 leads")):
        (site / "my_webhook.py").write_text(code)
        found = subprocess.run(words, cwd=site, capture_output=True, text=True, timeout=120)
        assert said in found.stdout, found.stdout
