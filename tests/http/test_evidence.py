"""How far a failed request speaks of the gateway: what we did ourselves, and what one event ended."""

from __future__ import annotations

import pytest

from fanout.core.outcome import Deferred, Scope, Unavailable
from fanout.http import RequestFailed, unanswered
from fanout.http.codec import Codec


def test_what_we_end_is_deferred_whatever_its_word() -> None:
    for reason in ("closed", "overload", "timeout", "connect"):
        for sent in ("no", "unknown"):
            failed = RequestFailed(sent, reason, own=True)
            assert unanswered(failed.sent, failed.reason, **failed.evidence) == Deferred(reason, sent=sent)


@pytest.mark.parametrize("reason", ["connect", "descriptors", "dns", "tls", "alpn", "settings", "goaway"])
def test_without_a_connection_no_endpoint_is_named(reason: str) -> None:
    outcome = unanswered("no", reason, connected=False)

    assert outcome == Unavailable("no", Scope.GROUP, reason)
    assert isinstance(outcome, Unavailable)
    assert not outcome.named


def test_requests_that_one_connection_ended_have_one_cause() -> None:
    """By loss as by GOAWAY; another connection's is another."""
    lost, other = _loaded("connection 1"), _loaded("connection 2")
    lost.close("closed")
    other.close("ping")

    causes = [{failure.cause for _, failure in codec.failed} for codec in (lost, other)]

    assert [len(each) for each in causes] == [1, 1]
    assert causes[0] != causes[1]
    assert "" not in causes[0]
    assert not any(failure.own for _, failure in lost.failed)


def _loaded(name: str = "the connection") -> Codec:
    from fanout.http import Head

    codec = Codec(name=name)
    codec.start()
    codec.ready = True
    for token in range(3):
        codec.request(token, Head("POST", "https", "push.example"), b"/", b"", b"x")
    codec.take()
    return codec
