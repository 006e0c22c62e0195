"""Errors without the frames that they passed."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["untraced"]


_E = TypeVar("_E", bound=BaseException)


def untraced(error: _E) -> _E:
    """A copy of `error` for an error that is kept, or that several callers get: without traceback and context, with its
    cause.

    A traceback holds the frames that the error passed. A frame that holds the error too makes a cycle, which keeps
    everything in those frames (the contents of a request among it) until the cycle collector runs, and `fanout` sets
    that to run rarely.
    """
    made = error.__class__.__new__(error.__class__, *error.args)
    made.__dict__.update(error.__dict__)
    made.__cause__ = error.__cause__
    made.__suppress_context__ = error.__suppress_context__
    return made
