"""The state before all is imported: the standard streams, the garbage collector, and the effect of a signal on `fanout
work` and `fanout serve` while no event loop listens, which is also that after the end.

It imports nothing of this package, so that its handlers stand before anything heavy is loaded. At both times the
process holds no lease and no connection: the signal ends it at once, and that is a clean end.
"""

from __future__ import annotations

import atexit
import errno
import gc
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

__all__ = [
    "LOCALE", "MEMORY", "bytes_kept", "code", "collect_rarely", "end", "ends_with", "listen", "say", "short_of_memory", "stops", "stream",
]  # fmt: skip

_GRACEFUL = ("work", "serve")
"""Commands for which being told to end is how they end."""

MEMORY = (
    "fanout: The system refuses this process the memory that it needs: raise its limit (ulimit -v, MemoryMax= of systemd, "
    "the container's), or end other processes."
)
"""The message for want of memory: made now, because it cannot be made then."""
LOCALE = (
    "An argument has characters that the locale of this process (LC_ALL, LANG) does not have: "
    "set LC_ALL=C.UTF-8 or PYTHONUTF8=1."
)
_UNMAPPED = ("failed to map segment", "cannot allocate memory", "can't start new thread")
"""Words of errors that are no `MemoryError`: of the dynamic linker (ld.so), and of Python."""

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
    gc.set_threshold(75_000, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)


def listen(words: Sequence[str]) -> None:
    """Install the handlers where `words`, the command line without the program, begin with one of those commands."""
    if words and words[0] in _GRACEFUL:
        for number in stops():
            signal.signal(number, end)


def end(number: int, frame: FrameType | None) -> None:
    """End the process. Not by an exception: an import or a destructor may swallow one."""
    os._exit(code)


def short_of_memory(error: BaseException | None) -> bool:
    """Whether this error, or one that led to it, is the system's refusal of memory."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        if isinstance(error, (ImportError, RuntimeError)) and any(word in str(error).lower() for word in _UNMAPPED):
            return True
        error = error.__cause__ or error.__context__
    return False


def bytes_kept(words: Sequence[str]) -> bool:
    """Whether a word of the command line has bytes that the locale could not decode (PEP 383), for another reason than
    that they are no UTF-8."""
    return sys.getfilesystemencoding().lower() not in ("utf-8", "utf8") and any(
        "\udc80" <= letter <= "\udcff" for word in words for letter in word
    )


def say(text: str) -> None:
    """A line on standard error, without the memory that a stream of Python takes."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())


def ends_with(result: int) -> None:
    """The command has its result: a signal from here on does not change the exit code."""
    global code
    code = result
