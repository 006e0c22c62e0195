"""Counting Python's execution: calls, bytecode instructions and memory blocks, by function.

Only the program's own work counts. The virtual loop and network (`fanout_kit`) do not, nor functions that they call.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeAlias

__all__ = ["Blocks", "Calls", "Counting", "Instructions", "part_of", "place"]

_Tracer: TypeAlias = "Callable[[FrameType, str, Any], _Tracer | None]"

_ROOT = Path(__file__).parents[2]
_OURS, _LIBRARY, _WORLD = "ours", "library", "world"
_LIB = Path(sys.modules["os"].__file__ or "").parent


def place(code: CodeType) -> str:
    """The function's name as a reader looks for it: `fanout/engine/sender.py Senders.run`; of a library, from its
    package on."""
    path = Path(code.co_filename)
    for root in (_ROOT / "transports", _ROOT):
        if path.is_relative_to(root) and "site-packages" not in path.parts:
            return f"{path.relative_to(root).as_posix()} {code.co_qualname}"
    if "site-packages" in path.parts:
        path = Path(*path.parts[path.parts.index("site-packages") + 1 :])
    elif path.is_relative_to(_LIB):
        path = path.relative_to(_LIB)
    else:
        path = Path(path.name)
    return f"{path.as_posix()} {code.co_qualname}"


def part_of(function: str) -> str:
    """The part of the program in which a `place` is: `fanout/engine`, `fanout_apns`, or `libraries`."""
    path = function.partition(" ")[0].split("/")
    if path[0] == "fanout":
        return "/".join(path[:2])
    return path[0] if path[0].startswith("fanout_") else "libraries"


def _kind(code: CodeType) -> str:
    name = place(code)
    if name.startswith(("fanout/testing/", "tests/", "benchmarks/")):
        return _WORLD
    return _OURS if name.startswith("fanout") else _LIBRARY


class Counting:
    """Counts between `start` and `stop`, as often as they are called. `by_code` is the count by function."""

    def __init__(self) -> None:
        self.by_code: Counter[CodeType] = Counter()
        self._kinds: dict[CodeType, str] = {}

    def start(self) -> None:
        """From now on."""
        raise NotImplementedError

    def stop(self) -> None:
        """Until now."""
        raise NotImplementedError

    def functions(self) -> dict[str, int]:
        """The counts by `place`."""
        found: Counter[str] = Counter()
        for code, count in self.by_code.items():
            found[place(code)] += count
        return dict(sorted(found.items()))

    def _counts(self, frame: FrameType) -> bool:
        """Whether this frame is the program's: ours, or a library's that was not called by the virtual world."""
        kind = self._kind(frame.f_code)
        if kind is _LIBRARY:
            caller = frame.f_back
            return caller is None or self._kind(caller.f_code) is not _WORLD
        return kind is _OURS

    def _kind(self, code: CodeType) -> str:
        kind = self._kinds.get(code)
        if kind is None:
            kind = self._kinds[code] = _kind(code)
        return kind


class Calls(Counting):
    """How often each Python function was entered (a coroutine: entered or resumed), plus its calls of functions in
    C."""

    def __init__(self) -> None:
        super().__init__()
        self._watch: dict[CodeType, Callable[[FrameType], None]] = {}

    def watch(self, watch: dict[CodeType, Callable[[FrameType], None]]) -> None:
        """Be told of each entry into one of these functions."""
        self._watch = watch

    def start(self) -> None:
        """See `Counting`."""
        sys.setprofile(self._event)

    def stop(self) -> None:
        """See `Counting`."""
        sys.setprofile(None)

    def _event(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            watched = self._watch.get(frame.f_code)
            if watched is not None:
                watched(frame)
            if self._counts(frame):
                self.by_code[frame.f_code] += 1
        elif event == "c_call" and self._counts(frame):
            self.by_code[frame.f_code] += 1


class Instructions(Counting):
    """How many bytecode instructions each function executed."""

    def __init__(self) -> None:
        super().__init__()
        self._local: dict[CodeType, _Tracer] = {}
        self._cells: dict[CodeType, list[int]] = {}

    def start(self) -> None:
        """See `Counting`."""
        sys.settrace(self._enter)

    def stop(self) -> None:
        """See `Counting`."""
        sys.settrace(None)
        for code, cell in self._cells.items():
            self.by_code[code] = cell[0]

    def _enter(self, frame: FrameType, event: str, argument: Any) -> _Tracer | None:
        if not self._counts(frame):
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        local = self._local.get(frame.f_code)
        return local if local is not None else self._make(frame.f_code)

    def _make(self, code: CodeType) -> _Tracer:
        """A function's own tracer: of a million events each would otherwise look for its counter."""
        cell = self._cells[code] = [0]

        def local(frame: FrameType, event: str, argument: Any) -> _Tracer:
            if event == "opcode":
                cell[0] += 1
            return local

        self._local[code] = local
        return local


class Blocks(Counting):
    """How many memory blocks each function's instructions left more than before, added up: memory that is freed later
    still counts.

    A block that C code takes and gives back within one instruction is not seen. Reading the allocator's count walks its
    pools, so this is for short runs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last = 0
        self._at: CodeType | None = None
        """The function whose instruction is being executed; None outside of the counted part."""

    def start(self) -> None:
        """See `Counting`."""
        self._at = None
        sys.settrace(self._enter)

    def stop(self) -> None:
        """See `Counting`."""
        sys.settrace(None)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> _Tracer | None:
        counts = self._counts(frame)
        self._add(frame.f_code if counts else None)
        if not counts:
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return self._inside

    def _inside(self, frame: FrameType, event: str, argument: Any) -> _Tracer:
        if event == "opcode":
            self._add(frame.f_code)
        else:
            back = frame.f_back if event == "return" else frame
            self._add(back.f_code if back is not None and self._counts(back) else None)
        return self._inside

    def _add(self, following: CodeType | None) -> None:
        """A rise since the last event belongs to the function whose instruction was executed in between."""
        now = sys.getallocatedblocks()
        at = self._at
        if at is not None and now > self._last:
            self.by_code[at] += now - self._last
        self._at, self._last = following, now
