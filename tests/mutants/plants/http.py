"""Faults in `fanout/http`: what is said to a gateway, and what its answers are taken for."""

from __future__ import annotations

from tests.mutants.plant import Plant

__all__ = ["PLANTS"]

_CODEC = "tests/http/test_codec.py tests/http/test_codec_limits.py"
_STATES = "tests/http/test_states.py"
_UPKEEP = "tests/http/test_upkeep.py"

PLANTS = [
    Plant(
        "what the engine gave up keeps its stream",
        "fanout/http/connection.py",
        "        if self.codec.streams:\n            self._drop_cancelled()\n",
        "",
        "tests/http/test_runs.py -k 'given_up'",
    ),
    Plant(
        "what the engine gave up keeps its stream, as the laws of a transport see it",
        "fanout/http/connection.py",
        "        if self.codec.streams:\n            self._drop_cancelled()\n",
        "",
        "tests/apns/test_conformance.py -k 'given_up'",
    ),
    Plant(
        "a receiver that raises costs the others their answers",
        "fanout/http/answers.py",
        "    except Exception as error:\n        # Without",
        "    except ZeroDivisionError as error:\n        # Without",
        "tests/http/test_runs.py -k 'receiver_that_raises'",
    ),
    Plant(
        "what was read is answered inside of the connection, and again where that raises",
        "fanout/http/connection.py",
        "        answered, codec.answered = codec.answered, []\n",
        "        answered = codec.answered\n",
        "tests/http/test_runs.py",
    ),
    Plant(
        "a status of success is forgotten where its answer breaks off",
        "fanout/http/inbound.py",
        "if part is None or not 200 <= part.status < 300:",
        "if part is None or part.status:",
        "tests/http/test_begun_answers.py",
    ),
    Plant(
        "the pause between two connects refuses requests",
        "fanout/http/upkeep.py",
        "        return self._unconnected or now >= self.until\n",
        "        return now >= self.until\n",
        "tests/http/test_upkeep.py tests/http/test_trouble.py",
    ),
    Plant(
        "a later GOAWAY raises the last id",
        "fanout/http/inbound.py",
        "self._last_allowed = min(self._last_allowed, last)",
        "self._last_allowed = last",
        _CODEC,
    ),
    Plant(
        "what GOAWAY excludes counts as sent",
        "fanout/http/inbound.py",
        'sent: Literal["no", "unknown"] = "unknown" if excluded in self.partial else "no"',
        'sent: Literal["no", "unknown"] = "unknown"',
        _CODEC,
    ),
    Plant(
        "GOAWAY excludes one stream too many",
        "fanout/http/inbound.py",
        "for number in self.streams if number > self._last_allowed]",
        "for number in self.streams if number >= self._last_allowed]",
        _CODEC,
    ),
    Plant(
        "every reset counts as not sent",
        "fanout/http/inbound.py",
        "refused = code == ErrorCode.REFUSED_STREAM and stream not in self.partial",
        "refused = stream not in self.partial",
        _CODEC,
    ),
    Plant(
        "a refusal after the answer has begun counts as not sent",
        "fanout/http/inbound.py",
        "refused = code == ErrorCode.REFUSED_STREAM and stream not in self.partial",
        "refused = code == ErrorCode.REFUSED_STREAM",
        _CODEC,
    ),
    Plant(
        "a connection's window is never topped up",
        "fanout/http/inbound.py",
        "            self.out.append(window_update(0, half - self.until_update))\n",
        "",
        _CODEC,
    ),
    Plant(
        "frames that move nothing forward are not counted",
        "fanout/http/inbound.py",
        "    NOISE = 2_000",
        "    NOISE = 2_000_000",
        _CODEC,
    ),
    Plant(
        "a header block may go on for ever",
        "fanout/http/inbound.py",
        "if block.frames > self.MOST_CONTINUATIONS or len(block.data) > self.MOST_HEADERS:",
        "if len(block.data) > self.MOST_HEADERS:",
        _CODEC,
    ),
    Plant(
        "a PING of the gateway stays without an answer",
        "fanout/http/inbound.py",
        "            self.out.append(ping(payload, ack=True))\n",
        "            pass\n",
        _CODEC,
    ),
    Plant(
        "what was not handed over counts as perhaps sent",
        "fanout/http/codec.py",
        "whole = stream < self._taken and stream not in self.outflow.waiting",
        "whole = True",
        _CODEC,
    ),
    Plant(
        "what was handed over counts as not sent",
        "fanout/http/codec.py",
        "whole = stream < self._taken and stream not in self.outflow.waiting",
        "whole = False",
        _CODEC,
    ),
    Plant(
        "ids go on beyond the last stream",
        "fanout/http/codec.py",
        "return self.ready and not self.going and not self.closed and self.next_stream <= LAST_STREAM",
        "return self.ready and not self.going and not self.closed",
        _CODEC,
    ),
    Plant(
        "requests go on after a goodbye",
        "fanout/http/codec.py",
        "return self.ready and not self.going and not self.closed and self.next_stream <= LAST_STREAM",
        "return self.ready and not self.closed and self.next_stream <= LAST_STREAM",
        _CODEC,
    ),
    Plant(
        "data before any head is taken for an answer",
        "fanout/http/states.py",
        "    Got.TRAILERS_END: Action.MALFORMED,\n    Got.DATA: Action.MALFORMED,\n    Got.DATA_END: Action.MALFORMED,\n",
        "    Got.TRAILERS_END: Action.MALFORMED,\n    Got.DATA: Action.IGNORE,\n    Got.DATA_END: Action.IGNORE,\n",
        _STATES,
    ),
    Plant(
        "a push that the server promises is let pass",
        "fanout/http/states.py",
        "_CLOSED = dict.fromkeys(Got, Action.IGNORE) | {Got.PUSH_PROMISE: Action.FATAL}",
        "_CLOSED = dict.fromkeys(Got, Action.IGNORE)",
        _STATES,
    ),
    Plant(
        "a silent connection with requests under way is not asked",
        "fanout/http/upkeep.py",
        "if (silence >= self._stall and overdue) or (silence >= self._idle and not in_flight):",
        "if silence >= self._idle and not in_flight:",
        _UPKEEP,
    ),
    Plant(
        "failed connects are repeated without a pause",
        "fanout/http/upkeep.py",
        "        self.until = now + backoff(self._failures, base=self._base, cap=cap, rng=rng)\n",
        "        self.until = now\n",
        _UPKEEP,
    ),
    Plant(
        "a private address among public ones is let pass",
        "fanout/http/guard.py",
        "if what and not (private and what in PRIVATE):",
        "if what and len(found) == 1 and not (private and what in PRIVATE):",
        "tests/guard",
    ),
    Plant(
        "a host that ends like an allowed one is allowed",
        "fanout/http/guard.py",
        'self._suffixes = tuple(f".{name}" for name in names if not _is_literal(name))',
        "self._suffixes = tuple(name for name in names if not _is_literal(name))",
        "tests/guard",
    ),
    Plant(
        "a shared TLS context outlives the authorities that it was made of",
        "fanout/http/tls.py",
        "(found.st_ino, found.st_size, found.st_mtime_ns) if found is not None else ()",
        "()",
        "tests/http/test_tls.py -k shared",
    ),
]
