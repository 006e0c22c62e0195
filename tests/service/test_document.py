"""The OpenAPI document against the service: schemathesis makes requests from it, right and wrong, and holds the answers
to it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from servicerig import UNLIMITED, Gateways, Stub, engine_of, key_of, running, settings_of

from fanout.service import create_app

EXAMPLES, MANY = 5, 50
"""For each operation and way, and with --soak. The service has some forty operations."""

DOCUMENT = create_app(engine_of(Gateways(), None), settings_of(), authenticator=Stub()).openapi()
OPERATIONS = sorted((path, method) for path, item in DOCUMENT["paths"].items() for method in item)
# A stream of events has no end, metrics are no JSON, and an import is lines, which schemathesis cannot write.
LEFT_OUT = {"/v1/me/feed/events", "/metrics", "/v1/endpoints/import"}
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "ignored_auth",
]


@cache
def schema() -> Any:
    """The document as schemathesis reads it. Imported here: it takes a second of each process that only collects this
    file."""
    import schemathesis

    return schemathesis.openapi.from_dict(DOCUMENT)


@dataclass
class Running:
    """A service in a loop and thread of its own: schemathesis blocks."""

    url: str
    user: str


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    up, down = threading.Event(), asyncio.Event()
    found: list[Any] = []

    async def serve(path: Path) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        await asyncio.to_thread(int)  # its thread is there before the first test, and gone after the last
        async with running(path, limits=UNLIMITED) as rig:
            await rig.subscribe("alice", "apns")
            for n in range(3):
                body = {"user": "alice", "binding": "apns", "address": f"alice-{n}"}
                await rig.as_app("POST", "/v1/endpoints", json=body)
            found.extend((Running(rig.url, rig.user_token("alice")), loop))
            up.set()
            await down.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve(tmp_path_factory.mktemp("document"))))
    thread.start()
    assert up.wait(30)
    yield found[0]
    found[1].call_soon_threadsafe(down.set)
    thread.join(30)


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [
        pytest.param(path, method, mode, id=f"{method} {path} {mode}")
        for path, method in OPERATIONS
        for mode in ("positive", "negative")
        if path not in LEFT_OUT
        # Where nothing is asked for, nothing can be asked for wrongly.
        and (mode == "positive" or {"parameters", "requestBody"} & set(DOCUMENT["paths"][path][method]))
    ],
)
def test_the_service_keeps_to_its_document(
    service: Running, path: str, method: str, mode: str, request: pytest.FixtureRequest
) -> None:
    from schemathesis import GenerationMode, checks

    judges = [getattr(checks, name) for name in CHECKS]
    token = service.user if path.startswith(("/v1/me", "/beta")) else key_of("shop")

    @given(case=schema()[path][method.upper()].as_strategy(generation_mode=GenerationMode(mode)))
    @settings(
        max_examples=MANY if request.config.getoption("--soak") else EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def holds(case: Any) -> None:
        headers = {"authorization": f"Bearer {token}"}
        answer = case.call(base_url=service.url, headers=headers)
        case.validate_response(answer, checks=judges, headers=headers)

    holds()


def test_every_operation_is_tried() -> None:
    assert len(OPERATIONS) > 25
    assert {path for path, _ in OPERATIONS} >= LEFT_OUT
