"""A configuration whose files change: what is taken, what is refused, and what is not believed."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from fanout.config import BindingPart, Owner, ServiceSettings, Settings, Watcher, binding_parts, load
from fanout.core.secret import Secret
from fanout.errors import ConfigurationError

pytestmark = pytest.mark.anyio


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    team: str = "T"
    key: Secret | None = None
    certificate: Path | None = None


@dataclass
class Prepared:
    owner: Recorder
    parts: Mapping[str, Any]

    def commit(self) -> None:
        self.owner.taken.append(dict(self.parts))

    def discard(self) -> None:
        self.owner.discarded += 1


@dataclass
class Recorder:
    """An owner that remembers what it was handed. `refuse` is what it cannot use."""

    taken: list[dict[str, Any]] = field(default_factory=list)
    discarded: int = 0
    prepared: int = 0
    refuse: str = ""
    meanwhile: Callable[[], object] = lambda: None

    async def prepare(self, parts: Mapping[str, Any]) -> Prepared:
        self.prepared += 1
        self.meanwhile()
        if self.refuse:
            raise ConfigurationError(self.refuse)
        return Prepared(self, parts)

    @property
    def last(self) -> Any:
        """The settings of the one binding that was taken last."""
        (part,) = self.taken[-1].values()
        return part.settings.settings


def text_of(**keys: str) -> str:
    lines = "".join(f'{name} = "{value}"\n' for name, value in keys.items())
    return f'storage = "sqlite:x.db"\n[apps.default.transports.push]\n{lines}'


def settings_type(name: str, place: str) -> type:
    return Keys


class World:
    """A folder with a configuration, a watcher of it, and an owner of its bindings."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        self.file = folder / "fanout.toml"
        self.file.write_text(text)
        self.settings = load(self.file, settings_type, {})
        self.watcher = Watcher(self.settings)
        self.bindings = Recorder()
        self.watcher.register(Owner("bindings", parts=binding_parts, prepare=self.bindings.prepare))

    async def looks(self, count: int = 3) -> bool:
        """So many looks; whether any took something."""
        return any([await self.watcher.look() for _ in range(count)])

    def replaced(self, path: Path, text: str) -> None:
        fresh = path.with_name("fresh")
        fresh.write_text(text)
        os.replace(fresh, path)


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "a.key").write_text("first")
    (tmp_path / "b.key").write_text("second")
    return World(tmp_path, text_of(team="T", key_file="a.key"))


async def test_what_has_not_changed_is_left_alone(world: World) -> None:
    assert not await world.looks(5)
    assert (world.bindings.prepared, world.watcher.state.taken) == (0, 0)


async def test_another_key_under_another_name_is_taken(world: World) -> None:
    assert not await world.looks()
    world.replaced(world.file, text_of(team="U", key_file="b.key"))
    assert await world.looks()
    assert (world.bindings.last.team, world.bindings.last.key.reveal()) == ("U", "second")
    assert world.watcher.state.taken == 1
    assert dict(world.watcher.settings.apps)["default"]["push"].settings.team == "U"


async def test_a_change_between_the_start_and_the_first_look_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "fanout.toml"
    file.write_text(text_of(team="T"))
    settings = load(file, settings_type, {})
    file.write_text(text_of(team="U"))  # read at the start, and changed before anything watched it
    watcher, owner = Watcher(settings), Recorder()
    watcher.register(Owner("bindings", parts=binding_parts, prepare=owner.prepare))
    assert await watcher.look()
    assert owner.last.team == "U"


async def test_texts_count_and_not_times(world: World) -> None:
    assert not await world.looks()
    key = world.folder / "a.key"
    before = key.stat()
    with key.open("r+") as stream:
        stream.write("FIRST")
    os.utime(key, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (key.stat().st_mtime_ns, key.stat().st_size) == (before.st_mtime_ns, before.st_size)
    assert await world.looks()
    assert world.bindings.last.key.reveal() == "FIRST"


async def test_a_file_that_was_only_touched_changes_nothing(world: World) -> None:
    assert not await world.looks()
    os.utime(world.file, (1, 1))
    world.replaced(world.folder / "a.key", "first")
    assert not await world.looks()
    assert world.bindings.prepared == 0


async def test_half_a_file_is_not_believed_though_it_is_a_document(world: World) -> None:
    """A writer that has come to the middle: valid TOML, and a binding without its team."""
    assert not await world.looks()
    whole = text_of(team="U", key_file="b.key")
    for length in (0, 30, 62, len(text_of(team="U"))):
        world.file.write_text(whole[:length])
        assert not await world.watcher.look()
    world.file.write_text(whole)
    assert not await world.watcher.look()
    assert await world.watcher.look()
    assert (world.bindings.last.team, world.bindings.prepared) == ("U", 1)
    assert world.watcher.state.refused == 0


async def test_a_link_to_a_folder_that_is_exchanged(tmp_path: Path) -> None:
    """What Kubernetes does with a mounted ConfigMap or Secret: `..data` is renamed over, all files change at once, and
    times may not."""
    for name, team, key in (("..1", "T", "first"), ("..2", "U", "other")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "fanout.toml").write_text(text_of(team=team, key_file="the.key"))
        (folder / "the.key").write_text(key)
        for file in folder.iterdir():
            os.utime(file, (1, 1))
    (tmp_path / "..data").symlink_to("..1")
    for name in ("fanout.toml", "the.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    watcher, owner = Watcher(load(tmp_path / "fanout.toml", settings_type, {})), Recorder()
    watcher.register(Owner("bindings", parts=binding_parts, prepare=owner.prepare))
    assert not await watcher.look()
    (tmp_path / "..data_tmp").symlink_to("..2")
    os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
    assert not await watcher.look()
    assert await watcher.look()
    assert (owner.last.team, owner.last.key.reveal(), owner.prepared) == ("U", "other", 1)


async def test_files_that_change_while_they_are_read_are_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document of the new pair with the key of the old one is no pair: the link was exchanged between two reads."""
    assert not await world.looks()
    world.replaced(world.file, text_of(team="U", key_file="a.key"))
    assert not await world.watcher.look()
    again, times = world.watcher._again, 0

    def read() -> Settings:
        nonlocal times
        found = again()
        times += 1
        if times == 2:
            world.replaced(world.folder / "a.key", "the new one")
        return found

    monkeypatch.setattr(world.watcher, "_again", read)
    assert not await world.watcher.look()
    assert world.bindings.prepared == 0
    assert await world.looks()
    assert (world.bindings.last.team, world.bindings.last.key.reveal()) == ("U", "the new one")


async def test_a_file_that_changes_while_owners_prepare_is_read_again(world: World) -> None:
    assert not await world.looks()
    world.replaced(world.folder / "a.key", "second")
    world.bindings.meanwhile = lambda: world.replaced(world.folder / "a.key", "third")
    assert not await world.looks(2)
    assert (world.bindings.prepared, world.bindings.discarded, world.bindings.taken) == (1, 1, [])
    world.bindings.meanwhile = lambda: None
    assert await world.looks()
    assert world.bindings.last.key.reveal() == "third"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("storage = ", "is not valid TOML"),
        ("", "storage is missing"),
        (text_of(team="T", kee="x"), "did you mean key"),
        (text_of(team="T", key_file="none.key"), "does not exist"),
        (text_of(team="T") + "[policy]\nattempts = 'many'\n", "policy.attempts"),
        (text_of(team="T") + "[service]\nblocked = 1\n", "service.blocked"),
    ],
)
async def test_an_invalid_document_is_refused_aloud_and_the_old_one_stays(
    world: World, text: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert not await world.looks()
    world.replaced(world.file, text)
    with caplog.at_level(logging.ERROR, "fanout.config"):
        assert not await world.looks(40)
    assert said in world.watcher.state.problem
    assert (world.watcher.state.refused, len(caplog.records)) == (1, 1)  # said once, however often it is looked at
    assert said in caplog.text
    assert world.bindings.taken == []
    assert world.watcher.settings == world.settings

    world.replaced(world.file, text_of(team="T", key_file="a.key"))
    assert not await world.looks()
    assert world.watcher.state.problem == ""
    assert world.bindings.prepared == 0  # what is in use stands there again


async def test_a_key_that_comes_after_the_document_that_names_it(world: World) -> None:
    assert not await world.looks()
    world.replaced(world.file, text_of(team="U", key_file="late.key"))
    assert not await world.looks(25)
    assert "does not exist" in world.watcher.state.problem
    (world.folder / "late.key").write_text("late")
    assert await world.looks(12)
    assert world.bindings.last.key.reveal() == "late"
    assert world.watcher.state.problem == ""


@pytest.mark.parametrize("which", ["fanout.toml", "a.key"])
async def test_a_file_that_is_away_or_unreadable_and_comes_back(world: World, which: str) -> None:
    assert not await world.looks()
    path = world.folder / which
    for unreadable in (False, True):
        path.rename(world.folder / "away")
        if unreadable:
            path.mkdir()
        assert not await world.looks()
        assert which in world.watcher.state.problem
        if path.is_dir():
            path.rmdir()
        (world.folder / "away").rename(path)
        assert not await world.looks()
        assert world.watcher.state.problem == ""
    assert world.bindings.prepared == 0
    path.unlink()
    assert not await world.watcher.look()  # away for one look only: nothing is said
    world.replaced(path, text_of(team="U", key_file="a.key") if which == "fanout.toml" else "new")
    assert await world.looks()
    assert world.watcher.state.refused == 2


async def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    """`--config <(…)` and `key_file = "/dev/fd/63"`: a second reading finds nothing, or waits for a writer."""
    (tmp_path / "fanout.toml").write_text(text_of(team="T", certificate="pipe"))
    settings = load(tmp_path / "fanout.toml", settings_type, {})
    os.mkfifo(tmp_path / "pipe")
    watcher = Watcher(settings)
    assert watcher.idle
    assert not await watcher.look(believe=True)
    assert watcher.state.problem == ""


async def test_what_one_owner_cannot_use_no_owner_takes(world: World, caplog: pytest.LogCaptureFixture) -> None:
    service = Recorder()
    end = world.watcher.register(
        Owner("service", parts=lambda settings: {"service": settings.service}, prepare=service.prepare)
    )
    assert not await world.looks()
    changed = text_of(team="U", key_file="b.key") + '[service]\norigins = ["https://a.example"]\n'
    service.refuse = "service: the issuer cannot be used."
    world.replaced(world.file, changed)
    assert not await world.looks(2)
    assert world.watcher.state.problem == service.refuse
    assert (world.bindings.taken, world.bindings.discarded, service.taken) == ([], 1, [])

    service.refuse = ""
    assert await world.looks(4)
    assert service.taken == [{"service": ServiceSettings(origins=("https://a.example",))}]
    assert world.bindings.last.team == "U"
    assert world.watcher.settings.service.origins == ("https://a.example",)

    end()
    world.replaced(world.file, text_of(team="U", key_file="b.key"))
    assert not await world.looks()
    assert len(service.taken) == 1
    assert world.watcher.state.at_restart == ("service",)
    end()


async def test_a_plugins_own_failure_is_a_refusal_without_its_text(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def prepare(parts: Mapping[str, BindingPart]) -> Prepared:
        raise RuntimeError("the-secret-itself")

    watcher = Watcher(world.settings)
    watcher.register(Owner("bindings", parts=binding_parts, prepare=prepare))
    world.replaced(world.folder / "a.key", "new")
    assert not any([await watcher.look() for _ in range(3)])
    assert "RuntimeError" in watcher.state.problem
    assert "the-secret-itself" not in watcher.state.problem


async def test_parts_that_wait_for_the_next_start_are_named_and_hold_up_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    assert not await world.looks()
    more = '[apps.default.transports.second]\ntype = "push"\n[policy]\nattempts = 3\n'
    world.replaced(world.file, text_of(team="U", key_file="a.key").replace("x.db", "y.db") + more)
    with caplog.at_level(logging.WARNING, "fanout.config"):
        assert await world.looks(6)
    late = ("apps.default.transports.second (push)", "policy", "storage")
    assert world.watcher.state.at_restart == late
    assert len(caplog.records) == 1
    assert all(name in caplog.text for name in late)
    assert world.bindings.last.team == "U"
    assert (world.watcher.settings.storage, world.watcher.settings.policy) == (
        world.settings.storage,
        world.settings.policy,
    )
    world.replaced(world.file, text_of(team="U", key_file="a.key"))
    assert not await world.looks()
    assert not world.watcher.state.at_restart


async def test_another_transport_under_the_same_name_waits_for_the_next_start(world: World) -> None:
    """The addresses of its endpoints are the old one's."""
    assert not await world.looks()
    world.replaced(world.file, text_of(type="other", team="T", key_file="a.key"))
    assert not await world.looks()
    assert world.watcher.state.at_restart == ("apps.default.transports.push", "apps.default.transports.push (other)")


async def test_an_operator_is_believed_at_once(world: World) -> None:
    assert not await world.looks()
    world.replaced(world.folder / "a.key", "new")
    assert await world.watcher.look(believe=True)
    assert world.bindings.last.key.reveal() == "new"


async def test_settings_made_in_a_program_are_not_replaced_by_the_file_that_they_began_with(world: World) -> None:
    """The program has changed what it read: only its secrets' files are looked at."""
    own = replace(world.settings, policy=replace(world.settings.policy, attempts=3))
    watcher, owner = Watcher(own), Recorder()
    watcher.register(Owner("bindings", parts=binding_parts, prepare=owner.prepare))
    world.replaced(world.file, text_of(team="U", key_file="b.key"))
    assert not any([await watcher.look() for _ in range(3)])
    assert watcher.state == replace(watcher.state, problem="", at_restart=())
    world.replaced(world.folder / "a.key", "new")
    assert any([await watcher.look() for _ in range(3)])
    assert (owner.last.team, owner.last.key.reveal()) == ("T", "new")


async def test_files_are_read_off_the_loop(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def seen(paths: Any) -> Mapping[str, str]:
        threads.append(threading.current_thread())
        return {}

    monkeypatch.setattr("fanout.config.watch.marks_of", seen)
    await world.watcher.look()
    assert threads
    assert threading.main_thread() not in threads


async def test_without_a_file_there_is_nothing_to_look_at() -> None:
    watcher = Watcher(Settings(storage="memory:", apps={}))
    assert watcher.idle
    assert not await watcher.look()


async def test_what_only_submits_reads_no_credential_and_follows_the_rest(world: World) -> None:
    (world.folder / "a.key").unlink()  # not for this process
    settings = load(world.file, settings_type, {})
    watcher, owner = Watcher(settings), Recorder()
    watcher.reads_secrets = False
    watcher.register(Owner("bindings", parts=binding_parts, prepare=owner.prepare))
    assert not any([await watcher.look() for _ in range(3)])
    assert watcher.state.problem == ""
    world.replaced(world.file, text_of(team="U", key_file="a.key"))
    assert any([await watcher.look() for _ in range(3)])
    assert owner.last.team == "U"
