"""The state before all is imported: the standard streams, the garbage collector, and the effect of a signal on `fanout
work` and `fanout serve` while no event loop listens, which is also that after the end.

It imports nothing of this package, so that its handlers stand before anything heavy is loaded. At both times the
process holds no lease and no connection: the signal ends it at once, and that is a clean end.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

__all__ = ["code", "collect_rarely", "end", "ends_with", "listen", "stops", "stream"]

_GRACEFUL = ("work", "serve")
"""Commands for which being told to end is how they end."""

code = 0
"""The exit code of a process that a signal ends outside of the event loop."""


def stops() -> tuple[signal.Signals, ...]:
    """The signals that tell this process to end: SIGHUP too (its terminal is gone), unless it was started to ignore
    that one (`nohup`)."""
    hangup: signal.Signals | None = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return (signal.SIGINT, signal.SIGTERM)
    return (signal.SIGINT, signal.SIGTERM, hangup)


def stream() -> None:
    """Open the standard streams that were closed (`>&-`) on the null device. Else the next file or socket has such a
    number: printed lines go into it, and libuv refuses to close it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - the lowest number that is free, which is its own


def collect_rarely() -> None:
    """Imported modules stay until the end: a search for garbage among them each 700 objects, and three more when Python
    ends, are a fifth of a command's time."""
    gc.set_threshold(50_000, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)


def listen(words: Sequence[str]) -> None:
    """Install the handlers where `words`, the command line without the program, begin with one of those commands."""
    if words and words[0] in _GRACEFUL:
        for number in stops():
            signal.signal(number, end)


def end(number: int, frame: FrameType | None) -> None:
    """End the process. Not by an exception: an import or a destructor may swallow one."""
    os._exit(code)


def ends_with(result: int) -> None:
    """The command has its result: a signal from here on does not change the exit code."""
    global code
    code = result
