"""The level table of the design, held against what every module really imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BELOW_ENGINE = ("fanout.plugin", "fanout.config", "fanout.core", "fanout.errors")
EVERYTHING = ("fanout",)

# For each part of the package, the first that matches: what it may import of `fanout` besides itself.
LEVELS: list[tuple[str, tuple[str, ...]]] = [
    ("fanout.cli", EVERYTHING),
    ("fanout.__main__", EVERYTHING),
    ("fanout.service", ("fanout.bootstrap", "fanout.metrics", "fanout.engine", "fanout.registry", *BELOW_ENGINE)),
    (
        "fanout.testing",
        ("fanout.enqueue", "fanout.bootstrap", "fanout.metrics", "fanout.engine", "fanout.registry", *BELOW_ENGINE),
    ),
    (
        "fanout.sync",
        ("fanout.enqueue", "fanout.bootstrap", "fanout.metrics", "fanout.engine", "fanout.registry", *BELOW_ENGINE),
    ),
    ("fanout.bootstrap", ("fanout.metrics", "fanout.engine", "fanout.registry", *BELOW_ENGINE)),
    ("fanout.metrics", ("fanout.engine", *BELOW_ENGINE)),
    ("fanout.registry", BELOW_ENGINE),
    ("fanout.engine", BELOW_ENGINE),
    ("fanout.storage", ("fanout.enqueue", *BELOW_ENGINE)),
    ("fanout.enqueue", ("fanout.core", "fanout.errors")),
    ("fanout.plugin", ("fanout.http", "fanout.core", "fanout.errors")),
    ("fanout.config", ("fanout.http", "fanout.core", "fanout.errors")),
    ("fanout.http", ("fanout.core", "fanout.errors")),
    ("fanout.client", ("fanout.core", "fanout.errors")),
    ("fanout.core", ("fanout.errors",)),
    ("fanout.errors", ()),
    ("fanout", EVERYTHING),
]
# What each part may import from PyPI, where that is part of the design.
OUTSIDE: list[tuple[str, set[str]]] = [
    ("fanout.core.codec", {"orjson"}),
    ("fanout.core", set()),
    ("fanout.errors", set()),
    ("fanout.http", {"hpack", "orjson"}),
    ("fanout.plugin.sealing", {"cryptography"}),
    ("fanout.plugin", set()),
    ("fanout.registry", set()),
    ("fanout.bootstrap", {"uvloop"}),
    ("fanout.config", {"pydantic", "orjson"}),
    ("fanout.engine", {"anyio", "orjson"}),
    ("fanout.storage", {"anyio", "apsw", "asyncpg", "cryptography", "orjson"}),
    ("fanout.metrics", {"aiohttp", "opentelemetry"}),
    ("fanout.enqueue", {"psycopg", "sqlalchemy"}),
    ("fanout.sync", set()),
    ("fanout.service.auth", {"cryptography", "jwt", "orjson"}),
    ("fanout.service.server", {"httptools", "uvicorn"}),
    ("fanout.service", {"fastapi", "orjson", "pydantic", "starlette", "uvicorn"}),
    ("fanout.client", {"aiohttp", "orjson"}),
    ("fanout.cli", {"typer", "rich", "orjson"}),
    ("fanout.__main__", set()),
]
IMPURE = {
    "asyncio",
    "concurrent",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "secrets",
    "select",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
}


def modules(folder: str) -> dict[str, Path]:
    """The modules below a source root by their dotted name."""
    root = ROOT if folder == "fanout" else ROOT / folder
    found = {}
    for file in sorted((ROOT / folder).rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


OURS = modules("fanout")
TRANSPORTS = modules("transports")
KIT = modules("tests/kit")


@cache
def imports(name: str, file: Path) -> frozenset[str]:
    """Every module that this one imports, at its top or inside a function; a name from a package as package.name. Each
    file is parsed once."""
    return frozenset(_imports(name, file))


def _imports(name: str, file: Path) -> Iterator[str]:
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, base] if base else up)
            yield from (f"{base}.{alias.name}" if f"{base}.{alias.name}" in OURS else base for alias in node.names)


def within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def part_of(name: str) -> tuple[str, tuple[str, ...]]:
    return next((part, allowed) for part, allowed in LEVELS if within(name, part))


def test_a_module_imports_only_what_stands_lower() -> None:
    wrong = {}
    for name in OURS.keys() - {"fanout"}:
        own, allowed = part_of(name)
        inside = [found for found in imports(name, OURS[name]) if within(found, "fanout")]
        wrong[name] = [found for found in inside if not any(within(found, part) for part in (own, *allowed))]
    assert not {name: found for name, found in wrong.items() if found}, "LEVELS says what each may import"


def test_the_server_of_metrics_is_imported_when_it_is_started() -> None:
    """Else each service takes the time for it, of which most serve their metrics themselves."""
    for name in (name for name in OURS if within(name, "fanout.metrics") or within(name, "fanout.service")):
        for node in ast.parse(OURS[name].read_text(encoding="utf-8")).body:
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(within(each, "aiohttp") for each in found), name


def test_a_module_imports_only_what_its_layer_may_have_from_outside() -> None:
    wrong = {}
    for name in OURS.keys() - {"fanout"}:
        allowed = next((outside for part, outside in OUTSIDE if within(name, part)), None)
        if allowed is not None:
            tops = {found.partition(".")[0] for found in imports(name, OURS[name])}
            wrong[name] = tops - allowed - {"fanout"} - set(sys.stdlib_module_names)
    assert not {name: found for name, found in wrong.items() if found}, "OUTSIDE says what each may import"


@pytest.mark.parametrize("name", [name for name in OURS if within(name, "fanout.core") or name == "fanout.errors"])
def test_the_core_is_pure(name: str) -> None:
    tree = ast.parse(OURS[name].read_text(encoding="utf-8"))
    wrong = {found.partition(".")[0] for found in imports(name, OURS[name])} & IMPURE
    assert not wrong, f"{name} imports {wrong}"
    for node in ast.walk(tree):
        assert not isinstance(node, (ast.AsyncFunctionDef, ast.Await)), f"{name}:{node.lineno} awaits"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            drawn = (node.value.id, node.attr)
            assert drawn[0] != "random" or node.attr == "Random", f"{name}:{node.lineno} draws randomness"
            assert drawn not in {("datetime", "now"), ("datetime", "utcnow"), ("date", "today")}, (
                f"{name}:{node.lineno}"
            )
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func)
            assert called != "random.Random", f"{name}:{node.lineno} makes its own randomness"


def test_storage_backends_do_not_know_each_other() -> None:
    backends = {name.split(".")[2] for name in OURS if name.count(".") >= 2 and within(name, "fanout.storage")}
    backends = {name for name in backends if (ROOT / "fanout" / "storage" / name).is_dir()} - {"sql"}
    for name, file in OURS.items():
        for found in imports(name, file):
            for backend in backends:
                if within(found, f"fanout.storage.{backend}"):
                    assert within(name, f"fanout.storage.{backend}"), f"{name} imports the backend {found} by name"


def test_nobody_imports_a_transport_by_name() -> None:
    packages = {name.partition(".")[0] for name in TRANSPORTS}
    for name, file in OURS.items():
        wrong = {found for found in imports(name, file) if found.partition(".")[0] in packages | {"transports"}}
        assert not wrong, f"{name} imports {wrong}"


def test_a_transport_imports_the_plugin_contract_and_nothing_else_of_fanout() -> None:
    for name, file in TRANSPORTS.items():
        package = name.partition(".")[0]
        allowed = ["fanout.plugin", package]
        if name.split(".")[1:2] == ["simulator"]:
            allowed.append("fanout.testing")
        for found in imports(name, file):
            if found.startswith("fanout"):
                assert any(within(found, part) for part in allowed), f"{name} imports {found}"
            assert found.partition(".")[0] != "transports", f"{name} imports {found}"


def test_what_is_installed_does_not_import_the_kit_of_the_tests() -> None:
    assert "fanout_kit.simulation" in KIT
    for name, file in (OURS | TRANSPORTS).items():
        wrong = {found for found in imports(name, file) if within(found, "fanout_kit") or within(found, "tests")}
        assert not wrong, f"{name} imports {wrong}"


def test_the_kit_of_the_tests_imports_what_the_public_one_may() -> None:
    allowed = ("fanout.testing", *part_of("fanout.testing")[1])
    for name, file in KIT.items():
        wrong = [
            found
            for found in imports(name, file)
            if within(found, "tests") or (within(found, "fanout") and not any(within(found, part) for part in allowed))
        ]
        assert not wrong, f"{name} imports {wrong}"


def test_the_test_kit_needs_no_test_framework() -> None:
    for name, file in OURS.items():
        tops = {found.partition(".")[0] for found in imports(name, file)}
        if name != "fanout.testing.pytest_plugin":  # which pytest loads
            assert not tops & {"pytest", "_pytest"}, f"{name} imports a test framework"


def test_the_check_itself_sees_a_wrong_import(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "def f():\n    from fanout.engine import Engine\nimport fanout.cli.commands\nfrom fanout import sync\n"
    )
    found = set(imports("fanout.core.module", file))
    assert found == {"fanout.engine", "fanout.cli.commands", "fanout.sync"}


@pytest.mark.parametrize("part", ["service", "cli", "metrics"])
def test_the_outer_layers_read_storage_by_names_of_the_engine(part: str) -> None:
    for name, file in OURS.items():
        if not within(name, f"fanout.{part}"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "storage":
                owner = ast.unparse(node.value)
                assert not owner.endswith("engine"), f"{name}:{node.lineno} reaches {owner}.storage: use {owner}.reads"


def circles(modules: dict[str, Path]) -> list[list[str]]:
    """The groups of modules that import one another, also inside functions and for type checkers alone."""
    graph = {
        name: {found for found in imports(name, file) if found in modules} - {name} for name, file in modules.items()
    }

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for found in graph[waiting.pop()] - seen:
                seen.add(found)
                waiting.append(found)
        return seen

    reach = {name: reached(name) for name in graph}
    groups = {
        tuple(sorted(other for other in reach[name] if name in reach[other])) for name in graph if name in reach[name]
    }
    return sorted(list(group) for group in groups)


def test_no_modules_import_one_another() -> None:
    assert circles(OURS | TRANSPORTS) == []


def test_the_check_itself_sees_a_circle(tmp_path: Path) -> None:
    texts = {
        "fanout.a": "from fanout.b import x",
        "fanout.b": "def f():\n    from fanout import c",
        "fanout.c": "import fanout.a",
    }
    made = {}
    for name, text in texts.items():
        made[name] = tmp_path / f"{name}.py"
        made[name].write_text(text)
    made["fanout.d"] = tmp_path / "d.py"
    made["fanout.d"].write_text("import fanout.a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{__name__}.OURS", made)
        assert circles(made) == [["fanout.a", "fanout.b", "fanout.c"]]
