"""Where a configuration comes from: a TOML file or a mapping, checked down to the level of bindings."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fanout.config.binding import BindingTable, read_secret, rooted
from fanout.config.environment import credential_file, expanded, overlaid
from fanout.config.faults import Faults
from fanout.config.settings import Telemetry
from fanout.config.tables import as_table, check_type, refuse_unknown, timed
from fanout.core.policy import BacklogLimits, Policy, Retention
from fanout.core.proxy import egress_of
from fanout.core.secret import Secret
from fanout.errors import ConfigurationError

__all__ = ["Document", "find_document", "storage_location"]

_KEYS = (
    "storage",
    "storage_file",
    "proxy",
    "proxy_file",
    "apps",
    "policy",
    "retention",
    "backlog",
    "service",
    "telemetry",
    "addresses",
)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_SCHEME = re.compile(r"[a-z][a-z0-9+-]*")
_LIMIT = 4 * 1024 * 1024
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A configuration whose bindings have not been looked into yet, so that one bad binding can be told from the
    rest."""

    storage: str = field(repr=False)
    bindings: tuple[BindingTable, ...]
    policy: Policy
    retention: Retention
    folder: Path
    origin: str
    apps: tuple[str, ...] = ()
    """All apps, those without a binding too."""
    service: Any = field(default_factory=dict, repr=False)
    """The `[service]` table as it stands there."""
    backlog: BacklogLimits = field(default_factory=BacklogLimits)
    telemetry: Telemetry = field(default_factory=Telemetry)
    proxy: Secret | None = None
    """The egress proxy of everything that names none of its own."""
    addresses: Any = field(default_factory=dict, repr=False)
    """The `[addresses]` table as it stands there."""
    faults: tuple[str, ...] = ()
    """The faults of a document that was asked for all the same; a value with a fault is replaced by its default."""

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], environ: Mapping[str, str] | None = None, *, thorough: bool = False
    ) -> Document:
        """The document in a TOML file, with the values of the environment. Relative paths in either start at the
        file's folder.

        Args:
            path: The path of the file.
            environ: The environment variables; None for this process's.
            thorough: Whether all faults but those of the file itself are kept in `faults` and raise nothing.

        Returns:
            The document.

        Raises:
            ConfigurationError: A setting is wrong; with `thorough`, the file cannot be read as TOML.
        """
        environ = os.environ if environ is None else environ
        file = Path(path).absolute()  # read again when it changes, wherever the program is then
        try:
            with file.open("rb") as stream:
                raw = stream.read(_LIMIT + 1)
            text = raw.decode()
        except FileNotFoundError:
            raise ConfigurationError(
                f"There is no configuration file {file}: create it, or name another with --config or FANOUT_CONFIG."
            ) from None
        except UnicodeDecodeError:
            raise ConfigurationError(f"{file} is not UTF-8 text: save it as TOML in UTF-8.") from None
        except OSError as error:
            raise ConfigurationError(
                f"The configuration file {file} cannot be read: {error.strerror}. Check its path and permissions."
            ) from None
        if len(raw) > _LIMIT:
            raise ConfigurationError(f"{file} is over {_LIMIT} bytes, which no configuration has: check its path.")
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{file} is not valid TOML: {error}. Correct that line.") from None
        except RecursionError:
            raise ConfigurationError(f"{file} is nested too deeply: write at most four levels.") from None
        faults = Faults()
        whole = overlaid(expanded(tables, environ, faults), environ, _KEYS, faults)
        return cls._made(whole, folder=file.parent, origin=str(file), environ=environ, faults=faults, thorough=thorough)

    @classmethod
    def of_environment(cls, environ: Mapping[str, str], *, thorough: bool = False) -> Document | None:
        """The document that environment variables make alone. Relative paths start at the current folder.

        Args:
            environ: The environment variables.
            thorough: Whether faults are kept in `faults` and raise nothing.

        Returns:
            The document; None where no variable is set.

        Raises:
            ConfigurationError: A setting is wrong.
        """
        faults = Faults()
        tables = overlaid({}, environ, _KEYS, faults)
        if not tables and not faults.found:
            return None
        return cls._made(tables, folder=Path(), origin="", environ=environ, faults=faults, thorough=thorough)

    @classmethod
    def of(
        cls,
        tables: Mapping[str, Any],
        *,
        folder: Path | None = None,
        origin: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> Document:
        """The document in a mapping of the same shape as the TOML file.

        Args:
            tables: The mapping.
            folder: The folder at which relative paths start; None for the current one.
            origin: The path of the file that it stands for; empty for none.
            environ: The environment in which systemd's credentials are looked for; None for none.

        Returns:
            The document.

        Raises:
            ConfigurationError: A setting is wrong.
        """
        where = Path() if folder is None else folder
        return cls._made(tables, folder=where, origin=origin, environ=environ or {}, faults=Faults(), thorough=False)

    @classmethod
    def _made(
        cls,
        tables: Mapping[str, Any],
        *,
        folder: Path,
        origin: str,
        environ: Mapping[str, str],
        faults: Faults,
        thorough: bool,
    ) -> Document:
        tables = as_table("the configuration", tables)
        take = faults.take
        take(lambda: refuse_unknown("", tables, _KEYS), None)
        storage = take(lambda: storage_location(_storage_text(tables, folder, environ), folder), "")
        proxy = take(lambda: _proxy(tables, folder, environ), None)
        bindings: list[BindingTable] = []
        take(lambda: bindings.extend(_bindings(tables.get("apps", {}), faults)), None)

        def numbers(name: str, cls: type[T]) -> T:
            return take(lambda: timed(name, as_table(name, tables.get(name, {})), cls), cls())

        made = cls(
            storage=storage,
            proxy=proxy,
            bindings=tuple(bindings),
            policy=numbers("policy", Policy),
            retention=numbers("retention", Retention),
            folder=folder,
            origin=origin,
            apps=take(lambda: tuple(as_table("apps", tables.get("apps", {}))), ()),
            service=tables.get("service", {}),
            backlog=numbers("backlog", BacklogLimits),
            telemetry=numbers("telemetry", Telemetry),
            addresses=tables.get("addresses", {}),
            faults=tuple(dict.fromkeys(faults.found)),
        )
        if not thorough:
            faults.settle()
        return made


def find_document(
    path: str | os.PathLike[str] | None, environ: Mapping[str, str], *, thorough: bool = False
) -> Document:
    """The document that was asked for.

    Args:
        path: The path of the file; None for the file that FANOUT_CONFIG names, else ./fanout.toml, else the values of
            the environment.
        environ: The environment variables.
        thorough: Whether all faults but those of the file itself are kept in `faults` and raise nothing.

    Returns:
        The document.

    Raises:
        ConfigurationError: There is none, or a setting is wrong; with `thorough`, there is none that can be read.
    """
    named = path or environ.get("FANOUT_CONFIG")
    if named:
        return Document.read(named, environ, thorough=thorough)
    if Path("fanout.toml").exists():
        return Document.read("fanout.toml", environ, thorough=thorough)
    document = Document.of_environment(environ, thorough=thorough)
    if document is None:
        raise ConfigurationError(
            "There is no configuration: create ./fanout.toml, name a file with --config or FANOUT_CONFIG, or set FANOUT_STORAGE and "
            "FANOUT_APPS__… in the environment (from Python: fanout.open(config=…) or its keyword arguments)."
        )
    return document


def _storage_text(tables: Mapping[str, Any], folder: Path, environ: Mapping[str, str]) -> Any:
    """Where the database is: a text that may hold a password, and may stand in a file of its own."""
    found = _secret_of("storage", tables, folder, environ)
    return found.reveal() if isinstance(found, Secret) else found


def _proxy(tables: Mapping[str, Any], folder: Path, environ: Mapping[str, str]) -> Secret | None:
    found = _secret_of("proxy", tables, folder, environ)
    secret = found if isinstance(found, Secret) or found is None else Secret(check_type("proxy", found, str), "proxy")
    if secret is not None and secret.at_hand:
        egress_of(secret, os.environ)  # raises for a value that is no proxy
    return secret


def _secret_of(name: str, tables: Mapping[str, Any], folder: Path, environ: Mapping[str, str]) -> Any:
    """The value of a key of the document that may hold a password: as it stands there, or a `Secret` from a file or a
    credential."""
    credential = credential_file(f"fanout_{name}", environ)
    sources = [key for key in (name, f"{name}_file") if tables.get(key) is not None]
    sources += [f"the credential fanout_{name}"] if credential is not None else []
    if len(sources) > 1:
        raise ConfigurationError(f"{name} is given more than once ({', '.join(sources)}): keep one of them.")
    if credential is not None:
        return read_secret(credential, f"The credential fanout_{name}")
    if sources != [f"{name}_file"]:
        return tables.get(name)
    path = rooted(check_type(f"{name}_file", tables[f"{name}_file"], Path), folder)
    return read_secret(path, f"{name}_file: the file {path}")


def storage_location(value: object, folder: Path) -> str:
    """The location of a storage, with a relative path of a file taken from a folder.

    Args:
        value: The value of the setting.
        folder: The folder.

    Returns:
        SCHEME:LOCATION.

    Raises:
        ConfigurationError: It is no location.
    """
    if value is None:
        raise ConfigurationError('storage is missing: write storage = "sqlite:fanout.db" on top of the configuration.')
    if not isinstance(value, str):
        raise ConfigurationError('storage must be a text in quotes, such as "sqlite:fanout.db".')
    scheme, colon, location = value.partition(":")
    if not colon or not _SCHEME.fullmatch(scheme):
        raise ConfigurationError('storage names no scheme: write it as SCHEME:LOCATION, such as "sqlite:fanout.db".')
    # A started worker must find the same database from every folder in which it is started. A URL is left as it is.
    if location and not location.startswith(("//", ":")) and folder != Path():
        location = str(folder / location)
    return f"{scheme}:{location}"


def _bindings(apps: object, faults: Faults) -> Iterator[BindingTable]:
    """The bindings of all apps; a fault of one is in `faults` and hides no other."""
    for app, table in as_table("apps", apps).items():
        place = f"apps.{app}"
        faults.take(partial(_check_name, place, app, "an app"), None)
        of_app = faults.take(partial(as_table, place, table), {})
        faults.take(partial(refuse_unknown, place, of_app, ("transports",)), None)
        place += ".transports"
        for binding, values in faults.take(partial(as_table, place, of_app.get("transports", {})), {}).items():
            found = faults.take(partial(_binding, app, binding, values, f"{place}.{binding}"), None)
            if found is not None:
                yield found
    if not as_table("apps", apps):
        raise ConfigurationError(
            "No transport is configured: add a table [apps.default.transports.NAME] with its settings, or [apps.default] alone for a feed "
            "that pushes nothing."
        )


def _binding(app: str, binding: str, values: Any, place: str) -> BindingTable:
    _check_name(place, binding, "a binding")
    kind = binding
    if isinstance(values, Mapping):
        kind = values.get("type", binding)
        if not isinstance(kind, str):
            raise ConfigurationError(f'{place}.type must be the name of a transport in quotes, such as "apns".')
        values = {key: value for key, value in values.items() if key != "type"}
    return BindingTable(app, binding, kind, values)


def _check_name(place: str, name: str, what: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{place}: the name of {what} has 1 to 64 letters, digits, dots, dashes and underscores."
        )
