"""An issuer's keys: rotation, the last good set, and how often it is asked, counted at the issuer."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections import Counter
from collections.abc import Iterator

import orjson
import pytest
from authrig import Rig, outcome, refusal

from fanout.service.auth import AuthError, Caller
from fanout.service.auth import issuer as fetching
from fanout.testing.issuer import Fault, SigningKey

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.WARNING, "fanout.service.auth"):
        yield


async def landed(rig: Rig) -> None:
    """Wait for the fetch that is under way."""
    for issuer in rig.auth._issuers.values():
        if issuer._flight is not None:
            await asyncio.wait((issuer._flight,))


async def test_nothing_is_fetched_before_it_is_needed_and_then_once(rig: Rig) -> None:
    assert not rig.issuer.requests
    tokens = [rig.token(jti=str(n)) for n in range(50)]
    assert {caller.user for caller in await asyncio.gather(*(rig.caller(token) for token in tokens))} == {"alice"}
    assert rig.issuer.requests == {"discovery": 1, "keys": 1}


async def test_a_new_key_is_found_by_its_first_token(rig: Rig) -> None:
    await rig.caller(rig.token())
    rig.clock.advance(11)
    before, new = rig.issuer.keys.current, rig.issuer.keys.rotate()
    callers = await asyncio.gather(*(rig.caller(rig.token(key=new, jti=str(n))) for n in range(50)))
    assert {caller.user for caller in callers} == {"alice"}
    assert rig.issuer.requests["keys"] == 2
    assert (await rig.caller(rig.token(key=before))).user == "alice"  # still published


async def test_a_key_rotated_in_just_after_a_fetch_is_503_until_the_issuer_is_asked_again(rig: Rig) -> None:
    await rig.caller(rig.token())
    for moment in (0.0, 3.0, 6.9):
        rig.clock.advance(moment)
        new = rig.issuer.keys.rotate()
        found = await outcome(rig.auth, rig.token(key=new))
        assert refusal(found) == (503, "key")
        assert isinstance(found, AuthError)
        assert 1 <= int(found.headers["Retry-After"]) <= 10
    rig.clock.advance(float(found.headers["Retry-After"]))
    assert (await rig.caller(rig.token(key=new))).user == "alice"
    assert rig.issuer.requests["keys"] == 2
    # What the issuer was asked for in vain is told as before.
    rig.clock.advance(11)
    stranger = SigningKey.make("stranger")
    for _ in range(3):
        assert await rig.refused(rig.token(key=stranger)) == (401, "key")
        rig.clock.advance(3)


async def test_two_keys_and_a_token_without_an_id(rig: Rig) -> None:
    rig.issuer.keys.rotate()
    assert await rig.refused(rig.token({"kid": None})) == (401, "key")  # it might be either's


async def test_one_id_for_two_keys(rig: Rig) -> None:
    """An issuer's mistake. Each key proves its own tokens, and nothing else gets in."""
    old = rig.issuer.keys.current
    twin = SigningKey.make(old.kid)
    rig.issuer.keys.published.append(twin)
    for key in (old, twin):
        assert (await rig.caller(rig.token(key=key))).user == "alice"
    assert await rig.refused(rig.token(key=SigningKey.make(old.kid))) == (401, "signature")


async def test_a_flood_of_unknown_ids_asks_the_issuer_once_in_ten_seconds(rig: Rig) -> None:
    good = rig.token()
    await rig.caller(good)
    foreign = SigningKey.make("x")
    flood = [foreign.sign(rig.claims(), {"kid": f"k{n}"}) for n in range(200)]
    asked = rig.issuer.requests["keys"]
    for second in range(30):
        rig.clock.advance(1)
        found = await asyncio.gather(*(outcome(rig.auth, token) for token in flood))
        assert {refusal(one) for one in found} <= {(401, "key"), (503, "key")}
        assert (await rig.caller(good)).user == "alice"
        assert (await rig.caller(rig.token(jti=str(second)))).user == "alice"
    assert rig.issuer.requests["keys"] - asked == 3


async def test_an_id_that_was_asked_for_in_vain_is_not_asked_for_again_at_once(rig: Rig) -> None:
    await rig.caller(rig.token())
    token = SigningKey.make("gone").sign(rig.claims())
    asked = rig.issuer.requests["keys"]
    for _ in range(5):
        rig.clock.advance(11)
        assert await rig.refused(token) == (401, "key")
    assert rig.issuer.requests["keys"] - asked == 1
    rig.clock.advance(17)
    await rig.refused(token)
    assert rig.issuer.requests["keys"] - asked == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault(down=True),
        Fault(status=503),
        Fault(status=301),
        Fault(body=b""),
        Fault(body=b"<html>"),
        Fault(body=b"{}"),
        Fault(body=b"[]"),
        Fault(body=b'{"keys":{}}'),
        Fault(body=b'{"keys":[]}'),
        Fault(body=b'{"keys":[null,1,"x",[],{}]}'),
        Fault(body=b'{"keys":[' + b" " * 300_000 + b"]}"),
        Fault(body=b"[" * 100_000),
    ],
    ids=lambda fault: f"{fault.down} {fault.status} {(fault.body or b'')[:20]!r}",
)
async def test_the_last_good_set_is_kept(rig: Rig, fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    """And a flood of unknown ids, which makes the issuer be asked, takes nothing away."""
    await rig.caller(rig.token())
    rig.issuer.faults["keys"] = fault
    foreign = SigningKey.make("x")
    for hour in range(23):
        rig.clock.advance(3600)
        for n in range(5):
            assert await rig.refused(foreign.sign(rig.claims(), {"kid": f"{hour}-{n}"})) == (503, "keys")
        assert (await rig.caller(rig.token())).user == "alice"
        await landed(rig)
    assert rig.auth.problems() == {}
    assert "stay in use" in caplog.text
    asked = rig.issuer.requests["keys"]
    assert 23 <= asked <= 60, "an issuer in trouble is left in peace"
    # After a day of silence nothing is believed any more, and it is said what is the matter.
    rig.clock.advance(3600)
    assert await rig.refused(rig.token()) == (503, "keys")
    assert list(rig.auth.problems()) == [rig.issuer.url]
    del rig.issuer.faults["keys"]
    rig.clock.advance(31)
    assert (await rig.caller(rig.token())).user == "alice"
    assert rig.auth.problems() == {}


async def test_a_flood_while_the_issuer_is_down_does_not_pile_up(rig: Rig) -> None:
    good = rig.token()
    await rig.caller(good)
    rig.clock.advance(20)
    held = asyncio.Event()
    rig.issuer.faults["keys"] = Fault(hold=held)
    foreign = SigningKey.make("x")
    flood = [foreign.sign(rig.claims(), {"kid": str(n)}) for n in range(600)]
    tasks = [asyncio.ensure_future(outcome(rig.auth, token)) for token in flood]
    while sum(task.done() for task in tasks) < 100:
        await asyncio.sleep(0.001)
    assert {refusal(task.result()) for task in tasks if task.done()} == {(503, "busy")}
    for n in range(20):
        assert (await rig.caller(rig.token(jti=str(n)))).user == "alice"
    held.set()
    await asyncio.wait(tasks)
    # The one that made the issuer be asked is told; what came meanwhile may be signed with a still newer key.
    assert Counter(refusal(task.result()) for task in tasks)[401, "key"] == 1
    assert {refusal(task.result()) for task in tasks} == {(503, "busy"), (401, "key"), (503, "key")}
    assert rig.issuer.requests["keys"] == 2


async def test_ten_thousand_unknown_ids_while_the_issuer_is_down(rig: Rig) -> None:
    """Row 51 of the reliability table, at 10,000 a second of the clock: nobody gets in, and nobody who should is kept
    out."""
    good = rig.token()
    await rig.caller(good)
    rig.issuer.faults["keys"] = Fault(down=True)
    rig.clock.advance(20)
    _, claims, signature = rig.token(sub="mallory").split(".")
    for n in range(10_000):
        header = base64.urlsafe_b64encode(b'{"alg":"RS256","kid":"%d"}' % n).rstrip(b"=").decode()
        assert await rig.refused(f"{header}.{claims}.{signature}") == (503, "keys")
        rig.clock.advance(0.0001)
        if n % 100 == 0:
            assert (await rig.caller(good)).user == "alice"
            assert (await rig.caller(rig.token(jti=str(n)))).user == "alice"
    assert (
        rig.issuer.requests["keys"] <= 3
    )  # one fetch; a GET is sent again where a kept connection turns out to be closed
    assert len(rig.auth._verified) == 101


async def test_before_the_first_answer_nothing_is_believed_and_the_issuer_is_not_stormed(rig: Rig) -> None:
    rig.issuer.faults["discovery"] = Fault(status=500)
    for _ in range(20):
        found = await asyncio.gather(*(outcome(rig.auth, rig.token(jti=str(n))) for n in range(5)))
        assert {refusal(one) for one in found} == {(503, "keys")}
        error = found[0]
        assert isinstance(error, AuthError)
        assert int(error.headers["Retry-After"]) >= 1
        rig.clock.advance(1)
    assert rig.issuer.requests["discovery"] <= 6
    rig.issuer.faults.clear()
    rig.clock.advance(30)
    assert (await rig.caller(rig.token())).user == "alice"


async def test_a_key_that_is_taken_out_ends_what_it_proved_within_five_minutes(rig: Rig) -> None:
    leaked = rig.issuer.keys.current
    token, seldom = rig.token(key=leaked), rig.token(key=leaked, jti="seldom")
    await rig.caller(token)
    await rig.caller(seldom)
    rig.issuer.keys.rotate()
    rig.issuer.keys.drop(leaked.kid)
    seconds = 0
    while isinstance(await outcome(rig.auth, token), Caller):
        rig.clock.advance(10)
        seconds += 10
        await landed(rig)
    assert 200 <= seconds <= 300
    for old in (token, seldom, rig.token(key=leaked, jti="new")):
        assert await rig.refused(old) == (401, "key")


async def test_a_cached_token_after_silence_waits_for_the_issuer(rig: Rig) -> None:
    token = rig.token()
    await rig.caller(token)
    rig.issuer.keys.drop(rig.issuer.keys.current.kid)
    rig.issuer.keys.rotate()
    rig.clock.advance(301)
    assert await rig.refused(token) == (401, "key")


async def test_a_leaked_key_can_be_ended_at_once(rig: Rig) -> None:
    token = rig.token()
    await rig.caller(token)
    rig.issuer.keys.drop(rig.issuer.keys.current.kid)
    rig.issuer.keys.rotate()
    assert (await rig.caller(token)).user == "alice"
    assert await rig.auth.refresh() == {rig.issuer.url: ""}
    assert await rig.refused(token) == (401, "key")


async def test_nobody_waits_for_an_issuer_that_is_known_to_be_in_trouble(rig: Rig) -> None:
    token = rig.token()
    await rig.caller(token)
    rig.issuer.faults["discovery"] = Fault(down=True)
    await rig.auth.refresh()
    held = asyncio.Event()
    rig.issuer.faults["discovery"] = Fault(hold=held)
    rig.clock.advance(3000)
    for one in (token, rig.token(jti="new"), token):
        assert (await rig.caller(one)).user == "alice"
        assert any(issuer._flight is not None for issuer in rig.auth._issuers.values())  # under way, and not waited for
    held.set()
    await landed(rig)


async def test_a_refresh_does_not_make_do_with_a_fetch_that_began_before(rig: Rig) -> None:
    token = rig.token()
    await rig.caller(token)
    held = asyncio.Event()
    rig.issuer.faults["keys"] = Fault(body=orjson.dumps(rig.issuer.keys.jwks()), hold=held)  # the old set, slowly
    early = asyncio.ensure_future(rig.auth.refresh())
    while rig.issuer.requests["keys"] < 2:
        await asyncio.sleep(0.001)
    rig.issuer.keys.drop(rig.issuer.keys.current.kid)
    rig.issuer.keys.rotate()
    late = asyncio.ensure_future(rig.auth.refresh())
    await asyncio.sleep(0)
    del rig.issuer.faults["keys"]
    held.set()
    await asyncio.gather(early, late)
    assert await rig.refused(token) == (401, "key")


async def test_the_regular_renewal_delays_nobody(rig: Rig) -> None:
    token = rig.token()
    await rig.caller(token)
    held = asyncio.Event()
    rig.issuer.faults["discovery"] = Fault(hold=held)
    rig.clock.advance(250)
    for _ in range(20):
        assert (await rig.caller(token)).user == "alice"
    held.set()
    await landed(rig)
    assert rig.issuer.requests == {"discovery": 2, "keys": 2}


async def test_a_token_that_was_verified_is_not_verified_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    verified = []
    honest = fetching.verify

    def counted(*what: object) -> object:
        verified.append(what)
        return honest(*what)  # type: ignore[arg-type]

    monkeypatch.setattr(fetching, "verify", counted)
    token = rig.token(exp=int(rig.clock.now()) + 100)
    for _ in range(10):
        assert (await rig.caller(token)).user == "alice"
    assert len(verified) == 1
    rig.clock.advance(160)
    assert await rig.refused(token) == (401, "expired")
    assert len(rig.auth._verified) == 0


async def test_a_cancelled_caller_leaves_the_fetch_to_the_others(rig: Rig) -> None:
    held = asyncio.Event()
    rig.issuer.faults["keys"] = Fault(hold=held)
    tasks = [asyncio.ensure_future(rig.caller(rig.token(jti=str(n)))) for n in range(3)]
    while not rig.issuer.requests["keys"]:
        await asyncio.sleep(0.001)
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    held.set()
    assert {caller.user for caller in await asyncio.gather(*tasks[1:])} == {"alice"}
    assert rig.issuer.requests["keys"] == 1


async def test_closing_ends_the_fetch_and_who_waits_for_it(rig: Rig) -> None:
    rig.issuer.faults["keys"] = Fault(hold=asyncio.Event())
    task = asyncio.ensure_future(outcome(rig.auth, rig.token()))
    while not rig.issuer.requests["keys"]:
        await asyncio.sleep(0.001)
    await rig.auth.aclose()
    assert refusal(await task) == (503, "keys")
    await rig.auth.aclose()
