"""From a source of settings to `Settings`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

from fanout.config.addresses import address_settings
from fanout.config.binding import BindingTable, binding_settings, check_environment
from fanout.config.document import Document, find_document
from fanout.config.environment import Asked
from fanout.config.service_table import service_settings
from fanout.config.settings import BindingSettings, Settings
from fanout.config.tables import field_types
from fanout.errors import ConfigurationError

__all__ = ["load", "load_binding"]


def load(
    source: str | os.PathLike[str] | Mapping[str, Any] | Document | None,
    settings_type: Callable[[str, str], type],
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """A whole configuration, checked.

    Args:
        source: A TOML file's path, a mapping of the same shape, or a `Document`; None for the file that FANOUT_CONFIG
            names, ./fanout.toml, or the environment alone.
        settings_type: The function that gives the settings dataclass of a transport; its arguments are the transport's
            name and the place that names it, for its error. An error of it passes through.
        environ: The environment variables; None for this process's.

    Returns:
        The settings.

    Raises:
        ConfigurationError: A setting is missing, unknown or malformed: the first that was found.
    """
    given = os.environ if environ is None else environ
    environ = Asked(given)
    match source:
        case Document():
            document = source
        case Mapping():
            document = Document.of(source)
        case _:
            document = find_document(source, environ)
    typed = [(table, settings_type(table.type, table.place)) for table in document.bindings]
    check_environment(typed, environ)
    apps: dict[str, dict[str, BindingSettings]] = {app: {} for app in document.apps}
    for table, cls in typed:
        apps[table.app][table.binding] = load_binding(table, cls, document, environ)
    settings = Settings(
        storage=document.storage,
        apps=apps,
        policy=document.policy,
        retention=document.retention,
        backlog=document.backlog,
        service=service_settings(
            document.service, folder=document.folder, environ=environ, apps=document.apps, proxy=document.proxy
        ),
        telemetry=document.telemetry,
        addresses=address_settings(document.addresses, folder=document.folder, environ=environ),
        folder=document.folder,
        origin=document.origin,
    )
    if not isinstance(source, (Document, Mapping)):
        environ.refuse_strays()
    object.__setattr__(settings, "again", lambda: load(document.origin or document, settings_type, given))
    return settings


def load_binding(
    table: BindingTable, cls: type, document: Document, environ: Mapping[str, str], *, thorough: bool = False
) -> BindingSettings:
    """The settings of one binding; the proxy of all, where it names none.

    Args:
        table: The binding's table.
        cls: The dataclass of the transport's settings.
        document: The document that the table is of.
        environ: The environment variables.
        thorough: Whether the files of its secrets are read, and everything that is wrong is told.

    Returns:
        The settings.

    Raises:
        ConfigurationError: A setting is wrong.
    """
    made = binding_settings(table, cls, document.folder, environ, thorough=thorough)
    if document.proxy is not None and "proxy" in field_types(cls) and made.proxy is None:
        try:
            made = dataclasses.replace(made, proxy=document.proxy)
        except ConfigurationError as error:
            raise ConfigurationError(f"{table.place}: {error}") from None
    return BindingSettings(table.type, made)
