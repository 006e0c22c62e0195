"""What is handed out: the files of the wheel and of the source distribution, and what an index shows of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from tests.environments.__main__ import floors

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
NEEDS_SOURCE = {"pywebpush"}
"""Libraries that need one which an index has as source alone (http-ece)."""
LEFT_BEHIND = (
    "notes/README.md", "old/tests/test_a.py", "scratch/fanout/a.py", "fanout/a.py.orig", "fanout/core/.a.py.swp", "tests/AuthKey_ABC.p8",
    "transports/fanout_webpush/vapid.pem", "deploy/.env", "docs/fanout.db", "docs/fanout.db-wal", "tests/fanout.toml", "dist/fanout.whl",
    "bench-results/a.json", "tests/core/__pycache__/a.pyc", "site/index.html", ".venv-3.12/pyvenv.cfg", "benchmarks/run.log",
)  # fmt: skip
KEPT = (
    "fanout/__init__.py",
    "fanout/py.typed",
    "transports/fanout_apns/__init__.py",
    "tests/test_a.py",
    "README.md",
    "LICENSE",
)


def listed(target: str, root: Path = ROOT) -> set[str]:
    """The files of a `wheel` or an `sdist` of that folder, without its metadata. Skips where hatchling is not
    installed."""
    pytest.importorskip("hatchling", reason="install hatchling (pip install -e '.[dev]')")
    from hatchling.builders.sdist import SdistBuilder
    from hatchling.builders.wheel import WheelBuilder

    builder: Any = {"wheel": WheelBuilder, "sdist": SdistBuilder}[target](str(root))
    return {str(each.distribution_path).replace(os.sep, "/") for each in builder.recurse_included_files()}


def tracked() -> set[str]:
    """What git has of this checkout, and what it would take if it were told to."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode or not (ROOT / ".git").exists():
        pytest.skip("this is no checkout of git")
    return {name for name in found.stdout.splitlines() if (ROOT / name).exists()}


def requirements(extra: str) -> set[str]:
    """The libraries that an extra installs, those of the extras that it names included."""
    found = set()
    for each in EXTRAS[extra]:
        ours = re.match(r"fanout-push\[(.*)\]", each)
        if ours:
            found |= {name for inner in ours[1].split(",") for name in requirements(inner)}
        else:
            found.add(re.split(r"[\[>=<;! ]", each)[0])
    return found


def test_the_wheel_has_the_packages_and_nothing_that_only_our_tests_use() -> None:
    found = listed("wheel")
    assert {name.split("/")[0] for name in found} == {
        "fanout", "fanout_apns", "fanout_fcm", "fanout_webpush", "fanout_wns",
    }  # fmt: skip
    assert {"fanout/py.typed", "fanout/testing/pytest_plugin.py", "fanout/service/web/worker.js"} <= found
    assert not [name for name in found if "fanout_kit" in name or "/testing/simulation" in name]
    assert {Path(name).suffix for name in found} <= {".py", ".typed", ".js", ".html", ".css", ".txt", ".md"}


def test_the_source_distribution_is_what_git_has_and_no_more() -> None:
    found, known = listed("sdist"), tracked()
    added = {".gitignore", "pyproject.toml"}  # by hatchling itself
    assert not found - known - added
    assert not {name for name in known - found if not name.startswith((".ci/", ".github/")) and name not in added}
    assert "tests/kit/fanout_kit/simulation/bugs.py" in found


@pytest.mark.parametrize("target", ["wheel", "sdist"])
def test_what_work_leaves_in_a_checkout_is_not_handed_out(target: str, tmp_path: Path) -> None:
    for name in ("pyproject.toml", ".gitignore", "hatch_build.py"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for name in (*LEFT_BEHIND, *KEPT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    kept = {
        "wheel": {"fanout/__init__.py", "fanout/py.typed", "fanout_apns/__init__.py"},
        "sdist": {*KEPT, "hatch_build.py"},
    }
    assert listed(target, tmp_path) - {"pyproject.toml", ".gitignore"} == kept[target]


def test_a_file_that_the_image_is_built_from_is_there_to_build_from() -> None:
    """The hook that hatchling loads stands beside pyproject.toml wherever that is copied to."""
    copied = re.findall(r"^COPY (pyproject.toml .*) \./$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
    assert [names.split() for names in copied] == [
        ["pyproject.toml", "hatch_build.py", "constraints.txt", "README.md", "LICENSE"]
    ]


def test_links_of_the_readme_lead_somewhere_on_an_index() -> None:
    pytest.importorskip("hatchling", reason="install hatchling (pip install -e '.[dev]')")
    from hatchling.metadata.core import ProjectMetadata
    from hatchling.plugin.manager import PluginManager

    core = ProjectMetadata(str(ROOT), PluginManager(), PYPROJECT).core
    place = f"{PROJECT['urls']['Repository']}/blob/v{PROJECT['version']}/"
    shown, source = core.readme, (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", shown, flags=re.DOTALL | re.MULTILINE))
    assert len(links) > 20
    assert core.readme_content_type == "text/markdown"
    for link in links:
        assert link.startswith(("https://", "#")), link
        if link.startswith(place):
            assert (ROOT / link.removeprefix(place).partition("#")[0]).exists(), link
    assert len([link for link in links if link.startswith(place)]) == len(re.findall(r"\]\((?!https?:|#)", source))


def test_a_link_is_rewritten_in_prose_and_not_in_code() -> None:
    pytest.importorskip("hatchling", reason="install hatchling (pip install -e '.[dev]')")
    spec = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(hook := module_from_spec(spec))
    text = (
        "[a](docs/a.md#b) ![c](d.svg) [e](https://f) [g](#h) [i](mailto:j)\n```python\nx[0](docs)\n```\n[k](LICENSE)\n"
    )
    assert hook.absolute(text, "https://r/") == (
        "[a](https://r/docs/a.md#b) ![c](https://r/d.svg) [e](https://f) [g](#h) [i](mailto:j)\n"
        "```python\nx[0](docs)\n```\n[k](https://r/LICENSE)\n"
    )


def test_addresses_of_the_project_are_of_one_place() -> None:
    urls = PROJECT["urls"]
    assert {"Repository", "Documentation", "Changelog"} <= set(urls)
    assert all(url.startswith(urls["Repository"]) and url.startswith("https://") for url in urls.values())


def test_an_extra_of_a_transport_installs_nothing_that_is_off_by_default() -> None:
    for name in PROJECT["entry-points"]["fanout.transports"]:
        assert requirements(name) == set(), name
    assert requirements("aioapns") == {"aioapns"}
    assert requirements("pywebpush") == {"pywebpush"}
    assert {"aioapns", "pywebpush"} <= requirements("dev") & requirements("bench")


def test_all_is_everything_for_users_that_installs_from_wheels() -> None:
    users = set(EXTRAS) - {"all", "dev", "bench", "docs", "testing"}
    everything = {name for extra in users for name in requirements(extra)}
    assert requirements("all") == everything - NEEDS_SOURCE
    assert "aioapns" in requirements("all")
    assert everything & NEEDS_SOURCE == {"pywebpush"}


@pytest.mark.parametrize(("transport", "extra"), [("apns", "aioapns"), ("webpush", "pywebpush")])
def test_the_alternative_of_a_transport_is_shown_in_one_line(transport: str, extra: str) -> None:
    folder = ROOT / "transports" / f"fanout_{transport}"
    lines = [
        line for line in (folder / "README.md").read_text(encoding="utf-8").splitlines() if f"'.[{extra}]'" in line
    ]
    assert len(lines) == 1
    told = "".join(file.read_text(encoding="utf-8") for file in folder.rglob("*.py"))
    assert re.search(rf"\[{extra}\]", told), "the error where it is missing names the extra"
    assert not re.search(rf"\[{transport}\]", told)


def test_pythons_are_those_from_the_lowest_on() -> None:
    minors = [int(found[1]) for each in PROJECT["classifiers"] if (found := re.search(r":: 3\.(\d+)$", each))]
    assert minors == list(range(minors[0], minors[0] + len(minors)))
    assert PROJECT["requires-python"] == f">=3.{minors[0]}"


def test_each_library_that_users_install_has_a_floor() -> None:
    known = floors(PROJECT)
    assert {name for extra in set(EXTRAS) - {"dev", "bench", "docs"} for name in requirements(extra)} <= set(known)


def test_no_name_is_deprecated() -> None:
    """Before 1.0 an old name is taken out, not kept with a warning."""
    for part in ("fanout", "transports"):
        for file in (ROOT / part).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            assert not re.search(r"DeprecationWarning|warnings\.deprecated|@deprecated", text), file


def test_the_package_of_the_tests_cannot_be_replaced_by_an_installed_one(tmp_path: Path) -> None:
    """A folder `tests` without `__init__.py` gives way to any package of that name, wherever on the path a library has
    put it."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").write_text("raise AssertionError('the stray one')\n")
    command = [sys.executable, "-c", "import tests.environments, fanout_kit; print(tests.__file__)"]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environ = {**os.environ, "PYTHONPATH": path}
    ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == str(ROOT / "tests" / "__init__.py"), ended.stderr
    assert PYPROJECT["tool"]["pytest"]["ini_options"]["pythonpath"][0] == "."
