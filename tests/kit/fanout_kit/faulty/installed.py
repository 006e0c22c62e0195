"""Makes the faulty plugins findable in this process, as if their distribution were installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, DistributionFinder, distributions
from importlib.metadata._meta import SimplePath

__all__ = ["PREFIX", "install"]

_HERE = "fanout_kit.faulty"
PREFIX = "faulty-"


def _names(group: str) -> set[str]:
    """The entry points of all other distributions in that group."""
    others = (found for found in distributions() if not isinstance(found, _Kit))
    return {entry.name for found in others for entry in found.entry_points if entry.group == group}


class _Kit(Distribution):
    def read_text(self, filename: str) -> str | None:
        if filename == "METADATA":
            return "Metadata-Version: 2.1\nName: fanout-faulty\nVersion: 0\n"
        if filename != "entry_points.txt":
            return None
        lines: list[str] = []
        for group, module in (("fanout.storage", "storage"), ("fanout.transports", "transport")):
            lines += [f"[{group}]"]
            lines += [f"{PREFIX}{name} = {_HERE}.{module}:{name}" for name in sorted(_names(group))]
        return "\n".join(lines)

    def locate_file(self, path: str | os.PathLike[str]) -> SimplePath:
        raise FileNotFoundError(str(path))


class _Finder(DistributionFinder):
    def find_distributions(self, context: DistributionFinder.Context | None = None) -> Iterable[Distribution]:
        name = getattr(context, "name", None)
        return [_Kit()] if name in (None, "fanout-faulty") else []

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> None:
        return None


def install() -> None:
    """From now on, and in this process only, `faulty-NAME` is a storage or transport for each NAME that is installed.
    Idempotent."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
