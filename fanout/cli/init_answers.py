"""The input of `fanout init`: options, answers, and defaults for the rest."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import typer

from fanout.cli.key_files import from_configuration
from fanout.cli.shell import say
from fanout.config import BindingTable, Document, check_setting, load_binding, storage_location
from fanout.core.secret import KeyPair, Secret
from fanout.errors import ConfigurationError, UsageError, refuse
from fanout.plugin import Question
from fanout.registry import Registry

__all__ = ["Answers", "Binding", "ask"]


@dataclass(frozen=True, slots=True)
class Binding:
    """The settings of one binding. `secrets` are texts that go into files of their own, by setting; `why` explains each
    setting."""

    values: Mapping[str, Any]
    secrets: Mapping[str, Secret] = field(repr=False)
    why: Mapping[str, str]
    public: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answers:
    """All answers, checked. `devices` are addresses for the first push, by binding."""

    app: str
    storage: str = field(repr=False)
    bindings: Mapping[str, Binding]
    devices: Mapping[str, Any] = field(repr=False)


def ask(
    registry: Registry,
    app: str,
    folder: Path,
    *,
    storage: str | None,
    transports: Sequence[str],
    given: Sequence[str],
    devices: Sequence[str],
    questions: bool,
    push: bool,
) -> Answers:
    """Every answer, asked for where `questions` are allowed and none is given. Raises `UsageError` and
    `ConfigurationError`."""
    if storage is None:
        storage = _prompt(
            "Where is the queue? sqlite:FILE on one machine, postgresql://USER:PASSWORD@HOST/DATABASE for several",
            "sqlite:fanout.db",
            questions=questions,
        )
    _check_storage(registry, storage, folder)
    names = registry.transports()
    chosen = list(transports)
    if not chosen:
        by_itself = [name for name, plugin in names.items() if plugin.keys] or list(names)[:1]
        said = _prompt(
            f"Which platforms, with commas between? There is {', '.join(names)}",
            ",".join(by_itself),
            questions=questions,
        )
        chosen = [name.strip() for name in said.split(",") if name.strip()]
    if not chosen:
        raise UsageError("No platform is named: say --transport webpush, for one.")
    set_answers = _by_binding("--set", given, chosen)
    bindings = {
        name: _binding(registry, app, name, folder, dict(set_answers.get(name, {})), questions=questions)
        for name in dict.fromkeys(chosen)
    }
    addresses = _addresses(devices, chosen)
    if push and questions and not addresses:
        said = _prompt(
            "A device for the first test push, as PLATFORM=ADDRESS (empty: gateways are simulated for it)",
            "",
            questions=True,
        )
        addresses = _addresses([said] if said else [], chosen)
    return Answers(app, storage, bindings, addresses)


def _check_storage(registry: Registry, storage: str, folder: Path) -> None:
    scheme = storage_location(storage, folder).partition(":")[0]
    registry.storage(scheme)
    if scheme == "memory":
        raise UsageError("--storage memory: lives in one process only: use sqlite:fanout.db.")


def _binding(
    registry: Registry, app: str, name: str, folder: Path, set_answers: dict[str, str], *, questions: bool
) -> Binding:
    plugin = registry.transport(name, f"apps.{app}.transports.{name}")
    why = {question.setting: question.ask for question in plugin.questions}
    pairs = [registry.resolve("transport", name, maker)() for maker in plugin.keys.values()]
    wanted = [question for question in plugin.questions if question.setting not in set_answers]
    answers: dict[str, str] = {}
    while True:
        for question in wanted:
            answers[question.setting] = _answer(name, question, answers.get(question.setting), questions=questions)
        try:
            return _made(
                app, name, plugin.settings, folder, set_answers | {k: v for k, v in answers.items() if v}, why, pairs
            )
        except ConfigurationError as error:
            if not questions or not wanted:
                raise
            for fault in error.faults:
                say(fault, level="error")


def _answer(name: str, question: Question, before: str | None, *, questions: bool) -> str:
    hidden = question.setting.endswith(("secret", "passphrase", "password"))
    default = before or question.default
    return _prompt(f"{name}: {question.ask}", default, questions=questions, hidden=hidden)


def _made(
    app: str,
    name: str,
    cls: type,
    folder: Path,
    set_answers: Mapping[str, str],
    why: Mapping[str, str],
    pairs: Sequence[KeyPair],
) -> Binding:
    """The binding that these answers make. Raises `ConfigurationError` with all that is wrong with them."""
    place = f"apps.{app}.transports.{name}"
    values: dict[str, Any] = {}
    secrets: dict[str, Secret] = {}
    public: dict[str, str] = {}
    faults: list[str] = []
    for pair in pairs:
        if pair.setting not in set_answers and f"{pair.setting}_file" not in set_answers:
            secrets[pair.setting] = pair.private
            public[pair.public_name] = pair.public
    for key, text in set_answers.items():
        try:
            value = check_setting(cls, place, key, text)
        except ConfigurationError as error:
            faults += error.faults
            continue
        if isinstance(value, Secret):
            secrets[key] = value
        else:
            values[key] = value
    refuse(faults)
    values = {key: _written(value, folder) for key, value in values.items()}
    document = Document.of({"storage": "memory:", "apps": {app: {}}}, folder=folder)
    load_binding(BindingTable(app, name, name, {**values, **secrets}), cls, document, {}, thorough=True)
    return Binding(values, secrets, why, public)


def _written(value: Any, folder: Path) -> Any:
    """A value as the configuration in `folder` has to write it: a path was meant from the current folder."""
    if isinstance(value, Path):
        return from_configuration(Path(os.path.abspath(value.expanduser())), folder / "fanout.toml")
    if isinstance(value, (tuple, list)):
        return [_written(part, folder) for part in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: _written(getattr(value, each.name), folder) for each in dataclasses.fields(value)}
    return value


def _addresses(devices: Iterable[str], chosen: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in devices:
        name, equals, address = text.partition("=")
        if not equals and len(chosen) == 1:
            name, address = chosen[0], text
        if name not in chosen or not address:
            raise UsageError(f"--device must be PLATFORM=ADDRESS, and PLATFORM one of {', '.join(chosen)}.")
        try:
            found[name] = orjson.loads(address) if address.lstrip().startswith("{") else address
        except orjson.JSONDecodeError as error:
            raise UsageError(
                f"--device {name}=… begins like JSON and is none: {error.msg}. Write it between single quotes, unchanged."
            ) from None
    return found


def _by_binding(flag: str, given: Iterable[str], chosen: Sequence[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for text in given:
        place, equals, value = text.partition("=")
        name, dot, key = place.partition(".")
        if not equals or not dot or not key:
            raise UsageError(
                f"{flag} must be PLATFORM.KEY=VALUE, such as webpush.vapid_subject=mailto:you@example.com."
            )
        if name not in chosen:
            raise UsageError(f"{flag} {place} is for {name}, which is none of those chosen: {', '.join(chosen)}.")
        found.setdefault(name, {})[key] = value
    return found


def _prompt(text: str, default: str, *, questions: bool, hidden: bool = False) -> str:
    if not questions:
        return default
    hide = hidden and sys.stdin.isatty()
    said: str = typer.prompt(
        text, default=default, show_default=bool(default) and not hidden, err=True, hide_input=hide
    )
    return said.strip()
