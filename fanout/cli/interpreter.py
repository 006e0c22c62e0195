"""How the interpreter was built, on which the CPU of every delivery depends."""

from __future__ import annotations

import platform
import sysconfig

from fanout.cli.findings import Finding

__all__ = ["build", "found", "present"]

_HINT = ": a build with both needs less CPU for each delivery (docs/operations.md, The interpreter)"


def found() -> Finding:
    """The interpreter of this process. A slow build is a detail and no warning: nothing is wrong with it."""
    about, name = present(), f"{platform.python_implementation()} {platform.python_version()}"
    return Finding("interpreter", name, detail=about + _HINT * about.startswith("without"), extra={"build": about})


def present() -> str:
    """The build of this process's interpreter. Windows has no `configure`, so its build is unknown."""
    return build(str(sysconfig.get_config_var("CONFIG_ARGS") or ""))


def build(arguments: str) -> str:
    """The build's optimizations, by the arguments of its `configure`: one without PGO and LTO is slower by as much as a
    version.

    A distribution's packaging may optimize by rules of its own (Debian's does), of which `configure` is not told.
    """
    words = arguments.replace("'", " ").split()
    profiled = "--enable-optimizations" in words
    linked = any(word.startswith("--with-lto") and word != "--with-lto=no" for word in words)
    if not profiled and not linked and (not words or "--prefix=/usr" in words):
        return "of the distribution" if words else "of unknown build"
    names = ("without PGO and LTO", "with LTO, without PGO", "with PGO, without LTO", "with PGO and LTO")
    return names[2 * profiled + linked]
