"""The processes that `fanout serve --simulate` starts beside the service: gateways, an identity provider, and tokens
that are ready to use."""

from __future__ import annotations

import json
import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fanout.cli.demo_folder import clear, write_config, write_private
from fanout.cli.gateways import Gateway, simulated_transports, toml_value
from fanout.registry import Registry
from fanout.testing.issuer import LoopbackIssuer

__all__ = ["Simulation", "simulated"]

_POLICY = {"backoff_base": 0.2, "backoff_throttled": 0.5, "backoff_cap": 5.0}
_CLIENT, _SECRET = "shop", "shop-secret"
_USERS = ("alice", "bob")


@dataclass(frozen=True, slots=True)
class Simulation:
    """The world around a service. `addresses` are device addresses that its gateways know, by binding."""

    config: Path
    issuer: LoopbackIssuer
    gateways: Mapping[str, str]
    addresses: Mapping[str, Any]

    @property
    def tokens(self) -> dict[str, str]:
        """Tokens by whose they are; each is good for an hour."""
        return {"the app": self.issuer.app_token(_CLIENT), **{user: self.issuer.sign_in(user) for user in _USERS}}

    def page(self, url: str, user: str = "alice") -> str:
        """The small page, for a user who has signed in. The part of the URL behind the # is not sent to any server.

        The page follows the feed. A push to it needs a browser's vendor, which is not simulated here.
        """
        return f"{url}/client/#{urlencode({'token': self.issuer.sign_in(user), 'user': user})}"

    @property
    def walk(self) -> Path:
        """Where `write_walk` leaves its file."""
        return self.config.parent / "walk.sh"

    def write_walk(self, url: str, metrics: str) -> None:
        """Leave a file for a shell to read (`. FILE`) that sets the variables of the documentation's walk, each device
        address by its binding's name."""
        addresses = {
            name.upper().replace("-", "_"): found if isinstance(found, str) else json.dumps(found)
            for name, found in self.addresses.items()
        }
        values = {"SERVICE": url, "METRICS": metrics, "ISSUER": self.issuer.url, "PAGE": self.page(url), **addresses}
        write_private(self.walk, "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()))

    def lines(self, url: str) -> list[str]:
        """The addresses, keys and tokens for trying the service."""
        issuer = self.issuer
        tokens = self.tokens
        return [
            *(
                f"A simulated {name} gateway listens at {where}; the address of a device there: {self.addresses[name]}"
                for name, where in self.gateways.items()
            ),
            f"An identity provider listens at {issuer.url}: client {_CLIENT}, secret {_SECRET}; users {' and '.join(_USERS)}.",
            f"  a user's token:  curl -s {issuer.url}/sign_in -d user=alice",
            f"  the app's token: curl -s {issuer.token_url} -d grant_type=client_credentials -d client_id={_CLIENT} -d client_secret={_SECRET}",
            f"  new keys:        curl -s -X POST {issuer.url}/rotate",
            f"The variables of the examples in README.md and docs/service.md are set by: . {shlex.quote(str(self.walk))}",
            f"The API, with these tokens filled in: {url}/docs",
            f"The page of alice: {self.page(url)}",
            *(f"Token of {who}: {token}" for who, token in tokens.items()),
        ]


@asynccontextmanager
async def simulated(folder: Path) -> AsyncIterator[Simulation]:
    """Gateways and issuer, running, and a configuration in `folder` that knows them. Raises `UsageError` for a folder
    in use."""
    registry = Registry()
    transports = simulated_transports(registry)
    clear(folder)
    async with AsyncExitStack() as stack:
        issuer = await stack.enter_async_context(LoopbackIssuer())
        gateways = {
            each.name: await stack.enter_async_context(Gateway(each.name, folder / "gateways" / each.name))
            for each in transports
        }
        settings = {name: gateway.settings for name, gateway in gateways.items()}
        config = write_config(folder, settings, _POLICY, _service(issuer))
        addresses = {each.name: each.address(0, "good") for each in transports}
        where = {name: gateway.url for name, gateway in gateways.items()}
        yield Simulation(config, issuer, where, addresses)


def _service(issuer: LoopbackIssuer) -> str:
    """The `[service]` tables of a service that believes this issuer."""
    found = issuer.settings()
    apps = found.pop("apps")
    lines = ["", "[[service.issuers]]", *(f"{key} = {toml_value(value)}" for key, value in found.items())]
    lines += [
        "",
        "[service.issuers.apps]",
        *(f"{toml_value(client)} = {toml_value(app)}" for client, app in apps.items()),
    ]
    return "\n".join([*lines, "", "[service.host_names]", '"app.example.com" = "default"', ""])
