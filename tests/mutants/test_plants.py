"""The plants fit the code as it is, and the run tells a plant that is noticed from one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from fanout_kit.simulation.bugs import BUGS, Bug
from tests.mutants.__main__ import Copy, main
from tests.mutants.all_plants import PLANTS
from tests.mutants.plant import ROOT, Plant


def test_there_are_enough_and_each_has_a_name_of_its_own() -> None:
    assert len({plant.name for plant in PLANTS}) == len(PLANTS) >= 60


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_plant_fits_the_code(plant: Plant) -> None:
    planted = plant.applied((ROOT / plant.file).read_text(encoding="utf-8"))
    assert plant.new != plant.old
    compile(planted, plant.file, "exec")
    places = [word.partition("::")[0] for word in plant.tests.split() if word.startswith("tests/")]
    assert places
    for place in places:
        assert (ROOT / place).exists(), place


@pytest.mark.parametrize("bug", BUGS.values(), ids=lambda bug: bug.name)
def test_a_bug_of_the_simulation_finds_its_place(bug: Bug) -> None:
    with bug.planted():
        pass


@pytest.mark.parametrize("count", [0, 2])
def test_a_text_that_is_not_there_once_is_refused(count: int) -> None:
    plant = Plant("x", "x.py", "a = 1", "a = 2", "tests/x.py")
    with pytest.raises(ValueError, match=f"stands {count} times"):
        plant.applied("a = 1\n" * count)


def test_a_plant_that_no_test_notices_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = {"a": [0, 1], "b": [0, 0], "c": [1], "d": [0, 4], "e": [0, None], "f": [0], "g": []}
    file = "tests/mutants/plant.py"
    plants = [Plant(name, file, "import Path", "import  Path", f"tests/{name}.py") for name in codes]

    def ran(name: str) -> tuple[int | None, str]:
        return codes[name].pop(0), "1 skipped in 0.1s" if name == "f" else "1 passed in 0.1s"

    monkeypatch.setattr(Copy, "__enter__", lambda self: self)
    monkeypatch.setattr(Copy, "planted", lambda self, plant: self)
    monkeypatch.setattr(Copy, "fits", lambda self, plant: plant.name != "g")
    monkeypatch.setattr(Copy, "pytest", lambda self, tests: ran(Path(tests).stem))
    assert main([], plants) == 1
    said = capsys.readouterr().out
    assert "noticed  a" in said
    assert "SURVIVED b" in said
    assert "tests/c.py does not pass as it is" in said
    assert "BROKEN   d" in said
    assert "noticed  e" in said
    assert "not run  f" in said
    assert "MISFIT   g" in said
    assert "7 plants, 4 without a test that notices" in said


def test_the_copy_is_what_is_tested_and_is_whole_again() -> None:
    plant = next(plant for plant in PLANTS if plant.file.startswith("fanout/core/"))
    with Copy() as copy:
        path = copy.folder / plant.file
        before = path.read_text(encoding="utf-8")
        module = plant.file.removesuffix(".py").replace("/", ".")
        look = f"import sys, {module}; print(open(sys.modules[{module!r}].__file__).read())"
        with copy.planted(plant):
            assert copy._python("-c", look).stdout.rstrip("\n") == plant.applied(before).rstrip("\n")
        assert path.read_text(encoding="utf-8") == before
