"""One binding's table made into its transport's settings: secrets from their files, paths from the right folder."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin

from fanout.config.environment import credential_file, same_name
from fanout.config.faults import Faults
from fanout.config.tables import as_table, check_type, field_types, is_missing, refuse_unknown
from fanout.config.written import Untyped
from fanout.core.secret import Secret
from fanout.errors import ConfigurationError, refuse

__all__ = [
    "BindingTable",
    "binding_settings",
    "check_environment",
    "check_setting",
    "environment_name",
    "find_secret",
    "later_secret",
    "made_of",
    "read_secret",
    "rooted",
]

_SECRET_LIMIT = 1024 * 1024
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BindingTable:
    """A binding as the configuration gives it: `values` is a table, or an instance of the transport's settings."""

    app: str
    binding: str
    type: str
    values: Any = field(repr=False)

    @property
    def place(self) -> str:
        """Where it stands in the configuration."""
        return f"apps.{self.app}.transports.{self.binding}"


def environment_name(app: str, binding: str, name: str = "") -> str:
    """The environment variable that holds a binding's secret: FANOUT_<APP>_<BINDING>_<NAME>, in capitals.

    A character that is no letter or digit becomes an underscore: app `shop`, binding `apns-eu`, secret `key` is
    FANOUT_SHOP_APNS_EU_KEY.

    Args:
        app: The app.
        binding: The binding's name.
        name: The setting; empty for the beginning that all of the binding's variables have.

    Returns:
        The name of the variable.
    """
    return same_name(f"fanout_{app}_{binding}_{name}")


def binding_settings(
    table: BindingTable, cls: type, folder: Path, environ: Mapping[str, str], *, thorough: bool = False
) -> Any:
    """An instance of `cls`, the settings of the transport. Raises `ConfigurationError`, without a secret in its text.

    With `thorough` the files of its secrets are read, so that everything that can be seen to be wrong is among the
    error's `faults`.
    """
    if isinstance(table.values, cls):
        return table.values
    return made_of(
        table.values,
        cls,
        table.place,
        folder=folder,
        environ=environ,
        variable=lambda name: environment_name(table.app, table.binding, name),
        thorough=thorough,
    )


def made_of(
    value: object,
    cls: type[T],
    place: str,
    *,
    folder: Path,
    environ: Mapping[str, str],
    variable: Callable[[str], str],
    thorough: bool,
    joint: str = ": ",
) -> T:
    """An instance of the dataclass `cls` from the table at `place`; `variable` names the environment variable of a
    secret.

    Raises `ConfigurationError`, whose `faults` are all that is wrong; a sentence of the class itself stands behind
    `place` and `joint`.
    """
    given = as_table(place, value)
    types = field_types(cls)
    secrets = {name for name, kind in types.items() if _holds(kind, Secret)}
    files = {f"{name}_file": name for name in secrets if f"{name}_file" not in types}
    faults = Faults()
    faults.take(lambda: refuse_unknown(place, given, [*types, *files]), None)

    def secret_of(name: str) -> Secret | None:
        secret = find_secret(place, name, given, folder, variable(name), environ)
        if secret is not None and thorough:
            faults.take(secret.reveal, None)
        return secret

    values: dict[str, Any] = {}
    wrong: set[str] = set()
    for name, kind in types.items():
        found, before, there = None, len(faults.found), False
        if name in secrets:
            found = faults.take(partial(secret_of, name), None)
            there = found is not None
        elif name in given:
            found = faults.take(partial(check_type, f"{place}.{name}", given[name], kind), None)
            there = len(faults.found) == before
        if there:
            values[name] = rooted(found, folder) if _holds(kind, Path) else found
        elif len(faults.found) > before:
            wrong.add(name)
        elif is_missing(cls, name):
            wrong.add(name)
            hint = f"write it, or {name}_file, or set {variable(name)}" if name in secrets else "write it"
            faults.found.append(f"{place}.{name} is missing: {hint}.")
    # A value that is wrong or missing is replaced, so that the rest can be judged too; findings about a replacement are
    # not passed on.
    values.update({name: _stand_in(types[name]) for name in wrong if name in secrets or is_missing(cls, name)})
    made = faults.take(lambda: cls(**values), None, f"{place}{joint}", wrong)
    examine: Callable[[Mapping[str, Any]], Iterable[str]] | None = getattr(cls, "examine", None)
    if thorough and examine is not None:
        faults.take(lambda: refuse(examine(values)), None, f"{place}{joint}", wrong)
    if thorough and isinstance(authority := values.get("ca_file"), Path):
        faults.take(lambda: _check_authority(f"{place}.ca_file", authority), None)
    faults.settle()
    assert made is not None
    return made


def _check_authority(place: str, path: Path) -> None:
    """Raise `ConfigurationError` for a file that is there and holds no certificates. One that is not there is refused
    by the setting that names it."""
    if not path.is_file():
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:  # ssl.SSLError is one
        why = "holds no certificate in PEM" if isinstance(error, ssl.SSLError) else f"cannot be read ({error.strerror})"
        raise ConfigurationError(f"{place}: the file {path} {why}: put the authority's certificates there.") from None


def check_setting(cls: type, place: str, key: str, text: str) -> Any:
    """The value of a text as a setting.

    Args:
        cls: The dataclass of the transport's settings.
        place: The binding's place in the configuration, for errors.
        key: The key of the setting.
        text: The text.

    Returns:
        A `Secret`, a path for NAME_file, or a value of the setting's type.

    Raises:
        ConfigurationError: There is no such setting, or the text is none of its values.
    """
    types = field_types(cls)
    secrets = [name for name, kind in types.items() if _holds(kind, Secret)]
    files = [f"{name}_file" for name in secrets if f"{name}_file" not in types]
    refuse_unknown(place, [key], [*types, *files])
    if key in files:
        return Path(_nonempty(text, f"{place}.{key}"))
    if key in secrets:
        return Secret(_nonempty(text, f"{place}.{key}"), key)
    return check_type(f"{place}.{key}", Untyped(text), types[key])


def _stand_in(kind: Any) -> Any:
    """Something that the class may take for a value of that type; where it does not, its faults name that."""
    if _holds(kind, Secret):
        return Secret.later(str)
    return kind() if kind in (str, int, float, bool) else {} if get_origin(kind) is dict else ""


def check_environment(tables: Iterable[tuple[BindingTable, type]], environ: Mapping[str, str]) -> None:
    """Refuse a variable that looks like a binding's secret and is none, and one that two bindings would share.

    Args:
        tables: The bindings, each with its dataclass of settings.
        environ: The environment variables.

    Raises:
        ConfigurationError: There is such a variable.
    """
    refuse(_misnamed(tables, environ))


def _misnamed(tables: Iterable[tuple[BindingTable, type]], environ: Mapping[str, str]) -> Iterator[str]:
    owners: dict[str, list[str]] = {}
    prefixes: dict[str, str] = {}
    for table, cls in tables:
        prefixes[environment_name(table.app, table.binding)] = table.place
        for name, kind in field_types(cls).items():
            if _holds(kind, Secret):
                for variable in (environment_name(table.app, table.binding, name + end) for end in ("", "_file")):
                    owners.setdefault(variable, []).append(f"{table.place}.{name}")
    for variable in environ:
        if "__" in variable and variable not in owners:
            continue  # a level of the document, or a stray
        places = owners.get(variable, [])
        if len(places) > 1:
            yield (
                f"The environment variable {variable} would be {' and '.join(places)} at once: rename one, or use files."
            )
        prefix = next((p for p in sorted(prefixes, key=len, reverse=True) if variable.startswith(p)), None)
        if not places and prefix is not None:
            names = [name for name in owners if name.startswith(prefix)]
            remedy = f"known here: {', '.join(names)}" if names else "this transport has no secrets"
            yield (
                f"The environment variable {variable} sets no secret of {prefixes[prefix]} ({remedy}): "
                f"correct its name, or put a setting that is not secret into the configuration."
            )


def find_secret(
    place: str, name: str, given: Mapping[str, Any], folder: Path, variable: str, environ: Mapping[str, str]
) -> Secret | None:
    """The secret `name` of a table: written there, in the file that `name`_file names, in the environment's `variable`,
    in the file that `variable`_FILE names, or in the systemd credential of that name in small letters."""
    filed, pointer = f"{name}_file", f"{variable}_FILE"
    credential = credential_file(variable.lower(), environ)
    sources = [key for key in (name, filed) if given.get(key) is not None]
    sources += [f"the environment variable {each}" for each in (variable, pointer) if each in environ]
    sources += [f"the credential {credential.name}"] if credential is not None else []
    if not sources:
        return None
    if len(sources) > 1:
        raise ConfigurationError(f"{place}.{name} is given more than once ({', '.join(sources)}): keep one of them.")
    if variable in environ:
        return Secret(_nonempty(environ[variable], f"The environment variable {variable}"), variable)
    if pointer in environ:
        path = rooted(Path(environ[pointer]), folder)
        return later_secret(path, f"The environment variable {pointer}: the file {path}")
    if credential is not None:
        return later_secret(credential, f"The credential {credential.name}")
    if sources == [filed]:
        return _from_file(f"{place}.{filed}", given[filed], folder)
    value = given[name]
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise ConfigurationError(f"{place}.{name} must be a text in quotes.")
    return Secret(_nonempty(value, f"{place}.{name}"), f"{place}.{name}")


def _from_file(place: str, value: object, folder: Path) -> Secret:
    path = rooted(check_type(place, value, Path), folder)
    return later_secret(path, f"{place}: the file {path}")


def later_secret(path: Path, what: str) -> Secret:
    """The secret in a file, which `what` names in errors. It is read when it is revealed, which raises
    `ConfigurationError`."""
    return Secret.later(lambda: _read(path, what), str(path), str(path))


def read_secret(path: Path, what: str) -> Secret:
    """The same, read now. Raises `ConfigurationError`."""
    return Secret(_read(path, what), str(path), str(path))


def _read(path: Path, what: str) -> str:
    try:
        with path.open("rb") as stream:
            raw = stream.read(_SECRET_LIMIT + 1)
    except FileNotFoundError:
        raise ConfigurationError(f"{what} does not exist: put the credential there or correct the path.") from None
    except OSError as error:
        raise ConfigurationError(
            f"{what} cannot be read ({error.strerror}): check the path and its permissions."
        ) from None
    if len(raw) > _SECRET_LIMIT:
        raise ConfigurationError(f"{what} is over {_SECRET_LIMIT} bytes, so it is no credential: correct the path.")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{what} is not text: give it in PEM or another text form.") from None
    return _nonempty(text, what)


def _nonempty(text: str, what: str) -> str:
    text = text.strip()
    if not text:
        raise ConfigurationError(f"{what} is empty: put the credential there.")
    return text


def rooted(value: Any, folder: Path) -> Any:
    """A path as it is meant: ~ is the home folder, a relative one starts at the configuration's folder."""
    if isinstance(value, Path):
        return folder / value.expanduser()
    if isinstance(value, tuple):
        return tuple(rooted(part, folder) for part in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {each.name: getattr(value, each.name) for each in dataclasses.fields(value) if each.init}
        return dataclasses.replace(value, **{name: rooted(part, folder) for name, part in parts.items()})
    return value


def _holds(kind: Any, wanted: type) -> bool:
    """Whether `kind` is the type, or a union or array with it."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return any(_holds(part, wanted) for part in field_types(kind).values())
    return kind is wanted or any(_holds(part, wanted) for part in get_args(kind) if part is not NoneType)
