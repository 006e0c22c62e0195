"""The `[service]` table read: each part of it against its dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fanout.config.binding import environment_name, made_of
from fanout.config.faults import Faults
from fanout.config.limits import Limits
from fanout.config.service import (
    ApiKeySettings,
    CertificateSettings,
    IssuerSettings,
    ServiceSettings,
    UserKeySettings,
)
from fanout.config.tables import as_table, check_type, field_types, refuse_unknown, timed
from fanout.config.written import opened
from fanout.core.secret import Secret
from fanout.errors import ConfigurationError

__all__ = ["service_settings"]

T = TypeVar("T")


def service_settings(
    value: object,
    *,
    folder: Path,
    environ: Mapping[str, str],
    apps: Collection[str],
    proxy: Secret | None = None,
    thorough: bool = False,
) -> ServiceSettings:
    """The settings in a `[service]` table. The secret of a user key may come from the environment's
    FANOUT_SERVICE_<ID>_SECRET.

    Args:
        value: The table, or `ServiceSettings`, which are used as they are.
        folder: The folder at which relative paths start.
        environ: The environment variables.
        apps: The configured apps.
        proxy: The egress proxy of the whole configuration, through which issuers' keys are fetched; None for none.
        thorough: Whether the files of secrets are read, so that faults in them are among its `faults`.

    Returns:
        The settings.

    Raises:
        ConfigurationError: A setting is wrong. The text has no secret.
    """
    faults = Faults()
    if isinstance(value, ServiceSettings):
        settings = value
    else:
        settings = _read(as_table("service", value), folder, environ, thorough, faults)
    if settings.proxy is None and proxy is not None:
        settings = dataclasses.replace(settings, proxy=proxy)
    faults.take(lambda: settings.check_apps(apps), None, "service.")
    faults.settle()
    return settings


def _read(
    given: Mapping[str, Any], folder: Path, environ: Mapping[str, str], thorough: bool, faults: Faults
) -> ServiceSettings:
    """The settings, with defaults in the place of wrong values: `faults` takes these."""
    take = faults.take
    take(lambda: refuse_unknown("service", given, set(field_types(ServiceSettings)) - {"proxy"}), None)
    parts: dict[str, Any] = {}
    for name, kind in (
        ("host_names", dict[str, str]),
        ("blocked", tuple[str, ...]),
        ("origins", tuple[str, ...]),
        ("trusted_proxies", tuple[str, ...]),
        ("public_url", str),
        ("metrics", bool),
    ):
        if name in given:
            found = take(partial(check_type, f"service.{name}", given[name], kind), None)
            if found is not None:
                parts[name] = found
    records: tuple[tuple[str, type], ...] = (
        ("issuers", IssuerSettings),
        ("keys", ApiKeySettings),
        ("user_keys", UserKeySettings),
        ("certificates", CertificateSettings),
    )
    for name, cls in records:
        made = [
            take(partial(_record, f"service.{name}", position, table, cls, folder, environ, thorough), None)
            for position, table in enumerate(take(partial(_tables, f"service.{name}", given.get(name, ())), ()))
        ]
        parts[name] = tuple(record for record in made if record is not None)
    parts["limits"] = take(
        lambda: timed("service.limits", as_table("service.limits", given.get("limits", {})), Limits), Limits()
    )
    return take(lambda: ServiceSettings(**parts), ServiceSettings(), "service.")


def _tables(place: str, value: object) -> list[object] | tuple[object, ...]:
    value = opened(value)
    if not isinstance(value, (list, tuple)):
        raise ConfigurationError(f"{place} must be an array of tables: write [[{place}]] and its keys below it.")
    return value


def _record(
    array: str,
    position: int,
    value: object,
    cls: type[T],
    folder: Path,
    environ: Mapping[str, str],
    thorough: bool,
) -> T:
    place = f"{array}[{position}]"
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{place} must be a table of settings: write [[{array}]] and its keys below it.")
    return made_of(
        value,
        cls,
        place,
        folder=folder,
        environ=environ,
        variable=lambda name: environment_name("service", str(value.get("id", "")), name),
        thorough=thorough,
        joint=".",
    )
