"""Settings from environment variables: `FANOUT_POLICY__ATTEMPTS=3`, and `${NAME}` in a file's values.

Two underscores separate levels, and names are in capitals; a key that stands in the file is meant where it is the same
but for letters and digits (`apns-eu` is APNS_EU), any other is new, in small letters. A variable has no type: its text
becomes a value of the type of the setting (`Untyped`), and tables and arrays are written as JSON. Names that begin with
FANOUT_ and are no setting are refused, but for those that Kubernetes and Docker make by themselves for services called
fanout.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from fanout.config.faults import Faults
from fanout.config.written import Untyped, parse_json
from fanout.errors import ConfigurationError, refuse

__all__ = ["Asked", "credential_file", "expanded", "overlaid", "same_name"]

PREFIX = "FANOUT_"
CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""Where systemd puts a unit's credentials (systemd.exec, "Credentials")."""

_NO_SETTINGS = frozenset(PREFIX + name for name in ("CONFIG", "LOG_FORMAT", "FAILPOINT", "POISON", "AUTOCHECKPOINT"))
"""Variables that say something else than a setting; the last three belong to the failpoints of our tests."""

_PLATFORM = re.compile(r"SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_\w+|NAME|ENV_\w+")
"""The endings that Kubernetes ("Service", environment variables) and Docker's links put behind a service's name."""

_REFERENCE = re.compile(r"\$(?:\$|\{([^}]*)\}?)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Asked(Mapping[str, str]):
    """An environment (`environ`) that knows which of its names were asked for: a name that is left over is no
    setting."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self._asked.add(name)
        return self._environ[name]

    def __contains__(self, name: object) -> bool:
        if isinstance(name, str):
            self._asked.add(name)
        return name in self._environ

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)

    def note(self, name: str) -> None:
        """Count a name as asked for that is looked up elsewhere.

        Args:
            name: The name.
        """
        self._asked.add(name)

    def strays(self) -> list[str]:
        """The names that begin with FANOUT_, and the credentials that begin so, that nothing has asked for."""
        left = [name for name in self._environ if name.startswith(PREFIX) and name not in self._asked]
        folder = self._environ.get(CREDENTIALS)
        if folder and Path(folder).is_dir():
            found = (path.name for path in Path(folder).iterdir())
            left += [name for name in found if name.startswith(PREFIX.lower()) and name not in self._asked]
        return sorted(name for name in left if name not in _NO_SETTINGS and not self._of_platform(name))

    def refuse_strays(self) -> None:
        """Refuse names that are no settings.

        Raises:
            ConfigurationError: There are such names; the text names the nearest setting.
        """
        refuse(self._refusals())

    def _refusals(self) -> Iterator[str]:
        for name in self.strays():
            near = get_close_matches(
                name, [asked for asked in self._asked if asked.lower().startswith(PREFIX.lower())], n=1
            )
            hint = f"did you mean {near[0]}?" if near else "correct its name, or take it out."
            what = "environment variable" if name.startswith(PREFIX) else "credential"
            yield f"The {what} {name} is no setting: {hint}"

    def _of_platform(self, name: str) -> bool:
        rest = name.removeprefix(PREFIX)
        if _PLATFORM.fullmatch(rest):
            return True
        # Of a service called fanout-web: Kubernetes makes all of its variables together, and the address is one of
        # them.
        service = rest.split("_SERVICE_")[0].split("_PORT")[0]
        service_host = f"{PREFIX}{service}_SERVICE_HOST" in self._environ
        return service_host and bool(_PLATFORM.fullmatch(rest.removeprefix(f"{service}_")))


def credential_file(name: str, environ: Mapping[str, str]) -> Path | None:
    """The file of the systemd credential `name`, if the unit has it."""
    if isinstance(environ, Asked):
        environ.note(name)
    folder = environ.get(CREDENTIALS)
    path = Path(folder, name) if folder else None
    return path if path is not None and path.is_file() else None


_TEXTS = {"storage": "storage_file", "storage_file": "storage", "proxy": "proxy_file", "proxy_file": "proxy"}
"""The keys of the first level that are no tables, each with the other way to give the same."""


def same_name(key: str) -> str:
    """How a variable writes a key: in capitals, and any other character than a letter or digit as an underscore."""
    return re.sub(r"[^A-Z0-9]", "_", key.upper())


def expanded(value: Any, environ: Mapping[str, str], faults: Faults | None = None) -> Any:
    """A document with `${NAME}` in its texts replaced by that variable, and `$$` by a dollar sign.

    `faults` takes the faults; without it a fault raises `ConfigurationError`.
    """
    own = Faults()
    whole = _expanded(value, environ, own if faults is None else faults, "")
    own.settle()
    return whole


def _expanded(value: Any, environ: Mapping[str, str], faults: Faults, place: str) -> Any:
    match value:
        case str() if "$" in value:
            text = faults.take(lambda: _REFERENCE.sub(lambda found: _referred(found, environ, place), value), value)
            return Untyped(text) if "${" in value else text
        case Mapping():
            return {
                key: _expanded(part, environ, faults, f"{place}.{key}" if place else key) for key, part in value.items()
            }
        case list():
            return [_expanded(part, environ, faults, f"{place}[{at}]") for at, part in enumerate(value)]
        case _:
            return value


def _referred(found: re.Match[str], environ: Mapping[str, str], place: str) -> str:
    if found.group() == "$$":
        return "$"
    name = found.group(1)
    if not found.group().endswith("}") or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{place}: ${{…}} must hold the name of an environment variable; for a dollar sign write $$."
        )
    if name not in environ:
        raise ConfigurationError(
            f"{place} names the environment variable {name}, which is not set: set it, or write the value."
        )
    return environ[name]


def overlaid(
    tables: Mapping[str, Any], environ: Mapping[str, str], keys: Collection[str], faults: Faults
) -> dict[str, Any]:
    """A document with the values of the environment; `keys` are those of its first level. `faults` takes the faults
    of these values."""
    whole: dict[str, Any] = _copy(tables)
    if isinstance(environ, Asked):
        for key in keys:
            environ.note(PREFIX + same_name(key))
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in _NO_SETTINGS:
            continue
        path = variable.removeprefix(PREFIX).split("__")
        top = next((key for key in keys if same_name(key) == path[0]), None)
        if top is None:
            continue  # a secret's own name, or a stray, which is found when all secrets have been asked for
        if all(re.fullmatch(r"[A-Z0-9_]+", part) for part in path):
            faults.take(partial(_put, whole, [top, *path[1:]], environ[variable], variable), None)
        else:
            faults.found.append(
                f"The environment variable {variable} is no setting: write levels in capitals, with __ between them."
            )
    return whole


def _put(whole: dict[str, Any], path: list[str], text: str, variable: str) -> None:
    table = whole
    for depth, part in enumerate(path[:-1]):
        key = _key(table, part, variable) if depth else part
        inner = table.setdefault(key, {})
        if isinstance(inner, Untyped):  # written as JSON by a variable, and more is said of it by this one
            inner = table[key] = parse_json(inner, inner.source)
        if not isinstance(inner, dict):
            raise ConfigurationError(
                f"The environment variable {variable} goes below {key}, which is no table: take one of them out."
            )
        table = inner
    key = _key(table, path[-1], variable) if len(path) > 1 else path[-1]
    if len(path) == 1 and key in _TEXTS:
        table.pop(_TEXTS[key], None)  # the environment's word for the file's
    value = Untyped(text, variable)
    table[key] = parse_json(value, variable) if _is_table(path) else value


def _is_table(path: list[str]) -> bool:
    """Whether a table must stand there with every transport."""
    return len(path) <= 4 if path[0] == "apps" else len(path) == 1 and path[0] not in _TEXTS


def _key(table: Mapping[str, Any], part: str, variable: str) -> str:
    """The key of `table` that a variable's part means: one that is there, else a new one in small letters."""
    found = [key for key in table if same_name(key) == part]
    if len(found) > 1:
        raise ConfigurationError(
            f"The environment variable {variable} would be {' and '.join(sorted(found))} at once: rename one."
        )
    return found[0] if found else part.lower()


def _copy(value: Any) -> Any:
    return {key: _copy(part) for key, part in value.items()} if isinstance(value, Mapping) else value
