"""A simulated Google and transports that talk to it."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fanout.plugin import Clock, Context, Secret
from fanout_fcm.settings import FcmSettings
from fanout_fcm.simulator import FcmSimulator
from fanout_fcm.transport import FcmTransport, make


class RealClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def settings_of(simulator: FcmSimulator, **changes: Any) -> FcmSettings:
    values = simulator.settings() | {"rate_per_minute": 600_000, "ramp": 0.0} | changes
    if values["service_account"] is not None:
        values["service_account"] = Secret(values["service_account"])
    values["ca_file"] = Path(values["ca_file"])
    return FcmSettings(**values)


def transport_to(
    simulator: FcmSimulator, *, clock: Clock | None = None, binding: str = "fcm", **changes: Any
) -> FcmTransport:
    context = Context(app="default", binding=binding, clock=clock or RealClock(), rng=random.Random(1))
    return make(settings_of(simulator, **changes), context)


Open = Callable[..., AbstractAsyncContextManager[tuple[FcmSimulator, FcmTransport]]]


@pytest.fixture(name="settings_of")
def settings_of_fixture() -> Callable[..., FcmSettings]:
    return settings_of


@pytest.fixture(name="transport_to")
def transport_to_fixture() -> Callable[..., FcmTransport]:
    return transport_to


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every simulator of this run keeps its keys: an RSA key takes a while to make."""
    return tmp_path_factory.mktemp("google")


@pytest.fixture
def opened(folder: Path) -> Open:
    """`async with opened(clock=…, simulator={…}, …) as (simulator, transport)`; the rest are the transport's
    settings."""

    @asynccontextmanager
    async def open_both(
        *, clock: Clock | None = None, simulator: dict[str, Any] | None = None, **changes: Any
    ) -> AsyncIterator[tuple[FcmSimulator, FcmTransport]]:
        given: dict[str, Any] = {"folder": folder, **(simulator or {})}
        if clock is not None:
            given["clock"] = clock.now
        async with FcmSimulator(**given) as google, transport_to(google, clock=clock, **changes) as transport:
            yield google, transport

    return open_both


@pytest.fixture(scope="session", autouse=True)
def _keys_are_read_once() -> Iterator[None]:
    """OpenSSL takes 18 ms to see that an RSA key is sound, and some hundred tests give it the same few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serialization, "load_pem_private_key", cache(serialization.load_pem_private_key))
        yield


@pytest.fixture(scope="session")
def pem() -> str:
    """A throw-away RSA key."""
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
