"""`fanout doctor`: every plugin, setting, credential and database checked, nothing pushed. A worker does the same
beside its work."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from fanout.bootstrap import Parts, SystemClock, prepare, ways_of
from fanout.cli import interpreter
from fanout.cli.contents import reserved_tags, strangers
from fanout.cli.doctor_files import exposed
from fanout.cli.findings import Finding, show
from fanout.cli.options import Config, Json
from fanout.cli.shell import run
from fanout.cli.status import unstorable
from fanout.config import (
    AddressSettings,
    Asked,
    BindingSettings,
    BindingTable,
    Document,
    Faults,
    ServiceSettings,
    Settings,
    address_settings,
    check_environment,
    find_document,
    line_of,
    load_binding,
    places,
    service_settings,
)
from fanout.engine.diagnose import diagnose, enter
from fanout.errors import ConfigurationError, FanoutError, PluginError, StorageAbsent, StorageError, UsageError
from fanout.plugin import Diagnosis, Sealer, egress_of, place_of_url, way_to
from fanout.registry import PluginInfo, Registry

__all__ = ["doctor", "examine", "report"]

_PATIENCE = 30.0
"""Seconds for one binding's check: twice the usual request deadline, for a token and a request."""


_LITTLE = 0.1
"""The part of the time that a look beside a running engine takes for the tables that it reads page by page."""

_ELSEWHERE = "not checked: a running worker serves it, as an object of its program or by another configuration, and the shell cannot load it"

_SERVICE_NEEDS = ("fastapi", "uvicorn", "httptools")
"""The packages of the extra `service` that `fanout serve` imports; PyJWT is missed by the issuers themselves."""


def doctor(config: Config = None, json: Json = False) -> None:
    """Check every plugin, credential and database. Nothing is pushed."""
    logging.getLogger("fanout").setLevel(logging.CRITICAL)  # a plugin's warnings are findings here
    run(lambda: report(config, json=json))


async def report(config: Path | None, *, json: bool = False) -> int:
    """Show everything that is found; the exit code that it comes to."""
    worst = 0
    async for finding in examine(config, Registry()):
        worst = max(worst, finding.code)
        show(finding, json=json)
    return worst


async def examine(config: Path | None, registry: Registry, *, beside: bool = False) -> AsyncIterator[Finding]:
    """Everything, in order, although something before it is wrong.

    `beside` a running engine the gateways of bindings are left out, which it asks itself, and the database is read at
    leisure.
    """
    yield interpreter.found()
    for plugin in registry.list(load=True):
        yield _plugin(plugin, registry)
    environ = Asked(os.environ)
    try:
        document = find_document(config, environ, thorough=True)
    except ConfigurationError as error:
        # A file that is no TOML has one fault, behind which nothing can be read.
        syntax = re.search(r"at line (\d+)", str(error))
        yield Finding("configuration", str(config or ""), str(error), code=2, line=int(syntax[1]) if syntax else None)
        return
    lines = _lines(document)
    yield Finding("configuration", document.origin)
    for fault in document.faults:
        yield Finding("configuration", document.origin, fault, code=2, line=line_of(fault, lines))

    async for finding in _parts_of(document, environ, registry, beside=beside):
        yield replace(finding, line=line_of(finding.problem, lines)) if finding.code == 2 else finding
    for finding in _wrong("environment", "", environ.refuse_strays):
        yield finding


async def _parts_of(document: Document, environ: Asked, registry: Registry, *, beside: bool) -> AsyncIterator[Finding]:
    good: list[tuple[BindingTable, type]] = []
    for table in document.bindings:
        try:
            good.append((table, registry.settings_type(table.type, table.place)))
        except (ConfigurationError, PluginError) as error:
            yield Finding("binding", _name(table), str(error), code=2)
    for finding in _wrong("environment", "", lambda: check_environment(good, environ)):
        yield finding
    made: dict[str, dict[str, BindingSettings]] = {}
    for table, cls in good:
        faults = Faults()
        settings = faults.take(partial(load_binding, table, cls, document, environ, thorough=True), None)
        if settings is not None:
            made.setdefault(table.app, {})[table.binding] = settings
        for fault in faults.found:
            yield Finding("binding", _name(table), fault, code=2)

    addresses = AddressSettings()
    try:
        addresses = address_settings(document.addresses, folder=document.folder, environ=environ)
        if addresses.key is not None:
            keys = Sealer.of(addresses.key).ids
            yield Finding("addresses", "", detail=f"encrypted with the key {keys[0]}; {len(keys)} in all")
    except (ConfigurationError, UsageError) as error:
        for fault in error.faults:
            yield Finding("addresses", "", fault, code=2)
        addresses = AddressSettings()
    if document.storage:
        for finding in await _storage(document, registry, addresses, beside=beside):
            yield finding
    for app, of_app in () if beside else made.items():
        for binding, chosen in of_app.items():
            yield await _binding(document, registry, app, binding, chosen)
    findings, service = await _service(document, environ)
    for finding in findings:
        yield finding
    for path, warning in exposed((made, addresses, service), document.origin).items():
        yield Finding("secret file", path, warning=warning)


def _plugin(plugin: PluginInfo, registry: Registry) -> Finding:
    return Finding(
        f"{plugin.kind} plugin",
        plugin.name,
        plugin.problem,
        f"{plugin.distribution} {plugin.version}",
        1 if plugin.problem else 0,
        {"distribution": plugin.distribution, "version": plugin.version},
        # A plugin without a binding may lack its libraries; a binding that uses it reports that by itself.
        "" if plugin.problem else registry.lacking(plugin),
    )


def _wrong(kind: str, name: str, check: Callable[[], object]) -> Iterator[Finding]:
    faults = Faults()
    faults.take(check, None)
    for fault in faults.found:
        yield Finding(kind, name, fault, code=2)


def _lines(document: Document) -> Mapping[str, int]:
    try:
        return places(Path(document.origin).read_text(encoding="utf-8")) if document.origin else {}
    except (OSError, UnicodeError):
        return {}


async def _storage(
    document: Document, registry: Registry, addresses: AddressSettings, *, beside: bool
) -> list[Finding]:
    scheme = document.storage.partition(":")[0]
    try:
        storage = _parts(document, registry, {}, addresses).storage
        async with storage:
            if problem := await unstorable(storage.probe):
                raise StorageError(problem)
            detail = ". ".join([storage.location, *getattr(storage, "remarks", ())])
            warning = await reserved_tags(storage, document.apps, share=_LITTLE if beside else 1.0)
            bindings = {f"{table.app}/{table.binding}" for table in document.bindings}
            return [
                Finding("storage", scheme, detail=detail, warning=warning),
                *(Finding("binding", name, detail=_ELSEWHERE) for name in await strangers(storage, bindings)),
            ]
    except (ConfigurationError, PluginError, UsageError) as error:
        return [Finding("storage", scheme, str(error), code=2)]
    except StorageAbsent:
        return [Finding("storage", scheme, detail="not made yet: `fanout work` or `fanout send` will make it")]
    except StorageError as error:
        return [Finding("storage", scheme, str(error), code=1)]


async def _binding(
    document: Document, registry: Registry, app: str, binding: str, settings: BindingSettings
) -> Finding:
    name = f"{app}/{binding}"
    try:
        transport = _parts(document, registry, {app: {binding: settings}}).transports[app, binding]
    except (ConfigurationError, PluginError) as error:
        return Finding("binding", name, str(error), code=2)
    ways = ways_of(transport)
    try:
        async with AsyncExitStack() as stack:
            await enter(stack, {(app, binding): transport})
            diagnosis = await diagnose(transport, _PATIENCE)
    except ConfigurationError as error:
        return Finding("binding", name, str(error), code=2)
    except FanoutError as error:
        diagnosis = Diagnosis(str(error))
    except Exception as error:
        diagnosis = Diagnosis(f"The plugin failed: {type(error).__name__} escaped from it; report it to its authors.")
    code = 0 if diagnosis.ok else 1
    route = "; ".join(f"{host} {way}" for host, way in ways.items())
    detail = "; ".join(part for part in (diagnosis.detail, route) if part)
    return Finding("binding", name, diagnosis.problem, detail, code, {"ways": ways}, warning=diagnosis.warning)


async def _service(document: Document, environ: Asked) -> tuple[list[Finding], ServiceSettings]:
    """The needs of `[service]`, if there is one: its packages, the keys of every issuer, and its settings."""
    if not document.service:
        return [], ServiceSettings()
    try:
        settings = service_settings(
            document.service,
            folder=document.folder,
            environ=environ,
            apps=document.apps,
            proxy=document.proxy,
            thorough=True,
        )
        for key in settings.user_keys:
            key.check()
        absent = [name for name in _SERVICE_NEEDS if find_spec(name) is None]
        problem = f"fanout serve needs {' and '.join(absent)}: install the extra 'service'." if absent else ""
        counted = f"{len(settings.issuers)} issuers, {len(settings.keys)} keys, {len(settings.user_keys)} user keys"
        found = [Finding("service", "", problem, counted, 1 if absent else 0)]
        return (found + await _issuers(settings, document.apps) if settings.issuers else found), settings
    except (ConfigurationError, UsageError) as error:
        return [Finding("service", "", fault, code=2) for fault in error.faults], ServiceSettings()


async def _issuers(settings: ServiceSettings, apps: tuple[str, ...]) -> list[Finding]:
    from fanout.service.auth import Authenticator

    async with Authenticator(settings, SystemClock(), apps=apps) as authenticator:
        problems = await authenticator.refresh()
    return [
        Finding(
            "issuer",
            issuer,
            f"Its keys could not be fetched: {problem}. Without them its tokens are refused: mend that, or correct service.issuers."
            if problem
            else "",
            "" if problem else f"its keys were fetched{_by_proxy(settings, issuer)}",
            1 if problem else 0,
        )
        for issuer, problem in problems.items()
    ]


def _by_proxy(settings: ServiceSettings, issuer: str) -> str:
    proxy = egress_of(settings.proxy, os.environ)(*place_of_url(issuer))
    return "" if proxy is None else f", {way_to(proxy)}"


def _parts(
    document: Document,
    registry: Registry,
    apps: Mapping[str, Mapping[str, BindingSettings]],
    addresses: AddressSettings | None = None,
) -> Parts:
    settings = Settings(
        storage=document.storage,
        apps=apps,
        policy=document.policy,
        retention=document.retention,
        addresses=addresses or AddressSettings(),
        folder=document.folder,
        origin=document.origin,
    )
    return prepare(settings, registry, create=False)  # a check creates no database


def _name(table: BindingTable) -> str:
    return f"{table.app}/{table.binding}"
