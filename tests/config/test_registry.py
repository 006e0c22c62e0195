"""Plugins are found by their metadata, loaded when used, and a broken one harms nobody else."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from fanout.errors import ConfigurationError, PluginError
from fanout.plugin import Context, StorageContext
from fanout.registry import Registry
from fanout.testing.clock import VirtualClock

GOOD = "from fanout.testing.scripted import plugin as make\nplugin = make()\n"


class Site:
    """A folder of installed distributions."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.syspath_prepend(str(folder))

    def install(
        self, distribution: str, module: str, code: str, *entries: str, group: str = "fanout.transports"
    ) -> None:
        (self.folder / f"{module}.py").write_text(code)
        info = self.folder / f"{distribution}-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.5\n")
        lines = "\n".join(entries or (f"{module} = {module}:plugin",))
        (info / "entry_points.txt").write_text(f"[{group}]\n{lines}\n")

    def registry(self) -> Registry:
        return Registry(distributions(path=[str(self.folder)]))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def context() -> Context:
    import random

    return Context(app="default", binding="b", clock=VirtualClock(), rng=random.Random(1))


def test_the_built_in_plugins_are_found_as_any_others() -> None:
    registry = Registry()
    assert {"memory", "sqlite"} <= set(registry.names("storage"))
    assert "apns" in registry.names("transport")
    assert all(plugin.distribution == "fanout-push" for plugin in registry.list() if plugin.name in ("apns", "sqlite"))


def test_nothing_is_imported_before_it_is_used(site: Site) -> None:
    site.install("pigeon-post", "pigeon_unused", "raise SystemError('imported')")
    (plugin,) = site.registry().list()
    assert (plugin.name, plugin.distribution, plugin.version, plugin.state) == (
        "pigeon_unused",
        "pigeon-post",
        "2.5",
        "found",
    )


def test_a_strangers_transport(site: Site) -> None:
    site.install("pigeon-post", "pigeon", GOOD)
    registry = site.registry()
    descriptor = registry.transport("pigeon")
    transport = registry.make_transport("pigeon", descriptor.settings(limit=10), context())
    assert transport.capacity("") == 1000
    assert [plugin.state for plugin in registry.list()] == ["loaded"]


@pytest.mark.parametrize(
    ("module", "code", "words"),
    [
        ("broken_import", "import no_such_module_at_all\n", "no_such_module_at_all"),
        ("broken_name", "", "plugin"),
        ("broken_raise", "raise RuntimeError('wet feathers')\n", "wet feathers"),
        ("broken_kind", "plugin = 3\n", "names a int, not a TransportPlugin"),
        ("broken_level", GOOD + "import dataclasses\nplugin = dataclasses.replace(plugin, api=99)\n", "level 99"),
        (
            "broken_settings",
            GOOD + "import dataclasses\nplugin = dataclasses.replace(plugin, settings=int)\n",
            "dataclass",
        ),
    ],
)
def test_a_broken_plugin_says_why_and_disables_only_itself(site: Site, module: str, code: str, words: str) -> None:
    site.install("bad-feathers", module, code)
    site.install("pigeon-post", "pigeon_beside_" + module, GOOD)
    registry = site.registry()
    states = {plugin.name: plugin.state for plugin in registry.list(load=True)}
    assert states == {module: "broken", "pigeon_beside_" + module: "loaded"}
    with pytest.raises(PluginError, match=r"bad-feathers 2\.5") as raised:
        registry.transport(module)
    assert words in str(raised.value)
    assert registry.transport("pigeon_beside_" + module).name == "scripted"


def test_two_of_one_name_are_both_named(site: Site) -> None:
    site.install("pigeon-post", "pigeon_one", GOOD, "pigeon = pigeon_one:plugin")
    site.install("dove-post", "pigeon_two", GOOD, "pigeon = pigeon_two:plugin")
    registry = site.registry()
    with pytest.raises(PluginError, match=r"dove-post 2\.5 and pigeon-post 2\.5"):
        registry.transport("pigeon")
    assert registry.names("transport") == ["pigeon"]
    for plugin in registry.list(load=True):
        assert plugin.state == "broken"
        assert "offers the same name" in plugin.problem


def test_an_unknown_name_lists_what_there_is(site: Site) -> None:
    site.install("pigeon-post", "pigeon_known", GOOD)
    with pytest.raises(ConfigurationError, match=r"^apps\.x: no transport called 'dove'.*there is pigeon_known"):
        site.registry().transport("dove", "apps.x")
    with pytest.raises(ConfigurationError, match="there is none at all"):
        site.registry().storage("sqlite")


def test_a_password_is_not_in_the_error_for_an_unknown_scheme() -> None:
    with pytest.raises(ConfigurationError) as raised:
        Registry().make_storage("mongo://alice:hush@h/db", StorageContext(clock=VirtualClock()))
    assert "mongo" in str(raised.value)
    assert "hush" not in str(raised.value)


def test_a_missing_extra_is_named(site: Site) -> None:
    code = (
        GOOD + "import dataclasses\nplugin = dataclasses.replace(plugin, factory='no_such_module:f', extra='wings')\n"
    )
    site.install("pigeon-post", "pigeon_extra", code)
    with pytest.raises(PluginError, match=r"pigeon-post 2\.5 cannot import no_such_module:f .* extra 'wings'"):
        site.registry().make_transport("pigeon_extra", None, context())


def test_finding_plugins_imports_none_of_them() -> None:
    code = "import sys; from fanout.registry import Registry; Registry().list(); print('fanout_apns' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
