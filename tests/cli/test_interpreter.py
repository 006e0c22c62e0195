"""What `fanout doctor` says of the interpreter: its build, and that a slow one has a faster."""

from __future__ import annotations

import platform
from typing import Any

import pytest

from fanout.cli import interpreter
from fanout.cli.interpreter import build, found


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("'--enable-optimizations' '--with-lto' '--prefix=/usr'", "with PGO and LTO"),
        ("'--with-lto=thin' '--enable-optimizations'", "with PGO and LTO"),
        ("'--enable-optimizations' '--with-lto=no'", "with PGO, without LTO"),
        ("'--with-lto=full'", "with LTO, without PGO"),
        ("'--prefix=/somewhere'", "without PGO and LTO"),
        ("'--enable-shared' '--prefix=/usr' '--enable-ipv6'", "of the distribution"),
        ("'--prefix=/usr' '--enable-optimizations'", "with PGO, without LTO"),
        ("", "of unknown build"),
    ],
)
def test_the_build_of_an_interpreter_is_named(arguments: str, said: str) -> None:
    assert build(arguments) == said


@pytest.mark.parametrize(
    ("arguments", "hinted"),
    [
        ("'--prefix=/somewhere'", True),
        ("'--enable-optimizations' '--with-lto'", False),
        ("'--prefix=/usr'", False),
        (None, False),
    ],
)
def test_a_build_that_is_not_optimized_has_a_hint_and_no_fault(
    monkeypatch: pytest.MonkeyPatch, arguments: str | None, hinted: bool
) -> None:
    monkeypatch.setattr(interpreter.sysconfig, "get_config_var", {"CONFIG_ARGS": arguments}.get)
    finding = found()
    assert ("a build with both needs less CPU" in finding.detail) is hinted
    assert (finding.problem, finding.warning, finding.code) == ("", "", 0)


def test_the_doctor_names_it(shell: Any) -> None:
    (line,) = [line for line in shell("doctor", "--json").lines if line["kind"] == "interpreter"]
    assert line["name"] == f"CPython {platform.python_version()}"
    assert line["build"] == interpreter.present()
