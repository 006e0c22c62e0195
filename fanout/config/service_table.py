"""The `[service]` table read: each part of it against its dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fanout.config.binding import environment_name, find_secret, rooted
from fanout.config.service import (
    ApiKeySettings,
    CertificateSettings,
    IssuerSettings,
    Limits,
    ServiceSettings,
    UserKeySettings,
)
from fanout.config.tables import as_table, check_type, field_types, is_missing, refuse_unknown, timed
from fanout.config.written import opened
from fanout.core.secret import Secret
from fanout.errors import ConfigurationError, UsageError

__all__ = ["service_settings"]

T = TypeVar("T")


def service_settings(
    value: object,
    *,
    folder: Path,
    environ: Mapping[str, str],
    apps: Collection[str],
    proxy: Secret | None = None,
) -> ServiceSettings:
    """The settings in a `[service]` table, or `ServiceSettings` as they are. `apps` are the configured apps.

    `proxy` is that of the whole configuration, through which issuers' keys are fetched. Relative paths start at `folder`. The secret of a user key may come from the environment's FANOUT_SERVICE_<ID>_SECRET. Raises
    `ConfigurationError`, without a secret in its text.
    """
    if isinstance(value, ServiceSettings):
        settings = value
    else:
        given = as_table("service", value)
        refuse_unknown("service", given, set(field_types(ServiceSettings)) - {"proxy"})
        parts: dict[str, Any] = {
            name: check_type(f"service.{name}", given[name], kind)
            for name, kind in (
                ("host_names", dict[str, str]),
                ("blocked", tuple[str, ...]),
                ("origins", tuple[str, ...]),
                ("trusted_proxies", tuple[str, ...]),
                ("public_url", str),
                ("metrics", bool),
            )
            if name in given
        }
        records: tuple[tuple[str, type], ...] = (
            ("issuers", IssuerSettings),
            ("keys", ApiKeySettings),
            ("user_keys", UserKeySettings),
            ("certificates", CertificateSettings),
        )
        for name, cls in records:
            parts[name] = tuple(
                _record(f"service.{name}", position, table, cls, folder, environ)
                for position, table in enumerate(_tables(f"service.{name}", given.get(name, ())))
            )
        parts["limits"] = timed("service.limits", as_table("service.limits", given.get("limits", {})), Limits)
        settings = _make("service", ServiceSettings, parts)
    if settings.proxy is None and proxy is not None:
        settings = dataclasses.replace(settings, proxy=proxy)
    try:
        settings.check_apps(apps)
    except UsageError as error:
        raise ConfigurationError(f"service.{error}") from None
    return settings


def _tables(place: str, value: object) -> list[object] | tuple[object, ...]:
    value = opened(value)
    if not isinstance(value, (list, tuple)):
        raise ConfigurationError(f"{place} must be an array of tables: write [[{place}]] and its keys below it.")
    return value


def _record(array: str, position: int, value: object, cls: type[T], folder: Path, environ: Mapping[str, str]) -> T:
    place = f"{array}[{position}]"
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{place} must be a table of settings: write [[{array}]] and its keys below it.")
    given = as_table(place, value)
    types = field_types(cls)
    secrets = [name for name, kind in types.items() if kind is Secret]
    refuse_unknown(place, given, [*types, *(f"{name}_file" for name in secrets)])
    values: dict[str, Any] = {}
    for name, kind in types.items():
        if name in secrets:
            variable = environment_name("service", str(given.get("id", "")), name)
            secret = find_secret(place, name, given, folder, variable, environ)
            if secret is not None:
                values[name] = secret
        elif name in given:
            values[name] = rooted(check_type(f"{place}.{name}", given[name], kind), folder)
        if name not in values and is_missing(cls, name):
            hint = f"write it, or {name}_file" if name in secrets else "write it"
            raise ConfigurationError(f"{place}.{name} is missing: {hint}.")
    return _make(place, cls, values)


def _make(place: str, cls: type[T], values: Mapping[str, Any]) -> T:
    try:
        return cls(**values)
    except UsageError as error:
        raise ConfigurationError(f"{place}.{error}") from None
