"""`/v1/endpoints` and `/v1/users`: the directory over HTTP."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from servicerig import Rig, running

from fanout.config import Limits
from fanout.errors import StorageFull
from fanout.plugin import Gone
from fanout.service.feed import NewItem

pytestmark = pytest.mark.anyio

PATH = "/v1/endpoints"
NDJSON = {"content-type": "application/x-ndjson"}


async def entered(
    rig: Rig, which: str = "alice-1", status: int = 201, app: str = "shop", **body: Any
) -> dict[str, Any]:
    answer = await rig.as_app("POST", PATH, app, json={"user": "alice", "binding": "apns", "address": which, **body})
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def listed(rig: Rig, app: str = "shop", **query: Any) -> list[int]:
    answer = await rig.as_app("GET", PATH, app, params=query)
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["endpoints"]]


async def test_create_read_update_delete(rig: Rig) -> None:
    made = await entered(rig, platform="ios", tags=["news", "news", "vip"], expires_at=4e9)
    assert "address" not in made
    assert (made["user"], made["binding"], made["platform"], made["tags"]) == ("alice", "apns", "ios", ["news", "vip"])
    place = f"{PATH}/{made['id']}"
    assert (await rig.as_app("GET", place)).json() == made
    changed = (await rig.as_app("PATCH", place, json={"tags": ["sport"]})).json()
    assert (changed["id"], changed["tags"], changed["platform"], changed["expires_at"]) == (
        made["id"],
        ["sport"],
        "ios",
        4e9,
    )
    assert (await rig.as_app("PATCH", place, json={"expires_at": None, "platform": ""})).json()["expires_at"] is None
    await rig.as_app("PATCH", place, json={"platform": "ios"})
    cleared = (await rig.as_app("PATCH", place, json={"platform": None, "tags": None})).json()
    assert (cleared["platform"], cleared["tags"]) == ("", [])
    assert (await rig.as_app("PATCH", place, json={"tags": ["sport"]})).json()["platform"] == ""
    assert await listed(rig, tag="sport") == [made["id"]]
    assert await listed(rig, tag="news") == []
    assert (await rig.as_app("DELETE", place)).status_code == 204
    assert (await rig.as_app("GET", place)).json()["state"] == "removed"
    assert (await rig.as_app("PATCH", place, json={"tags": []})).status_code == 409
    assert (await rig.as_app("DELETE", f"{PATH}/999")).status_code == 404


async def test_the_location_of_a_new_one(rig: Rig) -> None:
    body = {"user": "alice", "binding": "apns", "address": "alice-1"}
    answer = await rig.as_app("POST", PATH, json=body)
    assert (await rig.as_app("GET", answer.headers["location"])).json() == answer.json()


async def test_lists_are_filtered_and_have_a_cursor(rig: Rig) -> None:
    ids = [(await entered(rig, f"alice-{n}", binding=("apns", "fcm")[n % 2]))["id"] for n in range(5)]
    bob = (await entered(rig, "bob-1", user="bob"))["id"]
    assert await listed(rig) == [*ids, bob]
    assert await listed(rig, user="alice", binding="fcm") == ids[1::2]
    seen: list[int] = []
    cursor = None
    while True:
        query = {"limit": 2, "user": "alice"} | ({"cursor": cursor} if cursor else {})
        page = (await rig.as_app("GET", PATH, params=query)).json()
        seen += [each["id"] for each in page["endpoints"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert seen == ids
    for wrong in ({"state": "lost"}, {"limit": 0}, {"limit": "x"}, {"cursor": "1"}, {"user": "x" * 600}):
        assert (await rig.as_app("GET", PATH, params=wrong)).status_code == 400


async def test_quarantine_is_listed_and_taken_back(rig: Rig) -> None:
    ids = [(await entered(rig, f"alice-{n}"))["id"] for n in range(3)]
    for n in (1, 2):
        rig.gateways.answers[f"alice-{n}"] = Gone("Unregistered", since=4e9)
    await rig.as_app("POST", "/v1/notifications", json={"target": {"user": "alice"}, "title": "x"})
    await rig.quiet()
    assert await listed(rig, state="gone") == ids[1:]
    found = (await rig.as_app("GET", f"{PATH}/{ids[1]}")).json()
    assert (found["state"], found["reason"]) == ("gone", "Unregistered")
    assert (await rig.as_app("POST", f"{PATH}/{ids[1]}/restore")).json()["state"] == "active"
    many = (await rig.as_app("POST", f"{PATH}/restore", json={"ids": [ids[2], ids[2], 999]})).json()
    assert many == {"restored": 1, "asked": 2}
    assert await listed(rig) == ids
    assert (await rig.as_app("POST", f"{PATH}/999/restore")).status_code == 404


async def test_one_whose_address_is_in_use_again_cannot_be_taken_back(rig: Rig) -> None:
    old = (await entered(rig))["id"]
    await rig.as_app("DELETE", f"{PATH}/{old}")
    new = (await entered(rig, user="bob"))["id"]
    assert new != old
    assert (await rig.as_app("POST", f"{PATH}/{old}/restore")).status_code == 409


@pytest.mark.parametrize(
    "body",
    [
        {"user": ""},
        {"user": "a\x00b"},
        {"user": "x" * 513},
        {"user": 7},
        {"binding": "pigeon"},
        {"binding": ""},
        {"address": "NOT AN ADDRESS!"},
        {"address": {"endpoint": "x"}},
        {"address": 5},
        {"address": None},
        {"tags": "news"},
        {"tags": [""]},
        {"tags": ["x"] * 300},
        {"expires_at": "soon"},
        {"expires_at": -1},
        {"expires_at": 1e300},
        {"unknown": 1},
    ],
)
async def test_what_cannot_be_entered_is_400_and_names_no_address(rig: Rig, body: dict[str, Any]) -> None:
    error = (await entered(rig, "secret-address", 400, **body))["error"]
    assert error["code"] == "invalidRequest"
    assert "secret-address" not in error["message"]
    assert "NOT AN ADDRESS" not in error["message"]


async def test_apps_do_not_see_each_others(rig: Rig) -> None:
    id = (await entered(rig))["id"]
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/restore")):
        answer = await rig.as_app(method, f"{PATH}/{id}{path}", "news", json={"tags": []})
        assert answer.status_code == 404
    assert (await rig.as_app("POST", f"{PATH}/restore", "news", json={"ids": [id]})).json()["restored"] == 0
    assert await listed(rig, "news") == []
    assert (await rig.as_app("DELETE", "/v1/users/alice", "news")).json() == {"endpoints": 0}
    assert await listed(rig) == [id]


def line(n: int, **more: Any) -> bytes:
    return orjson.dumps({"user": f"u{n}", "transport": "apns", "address": f"device-{n}", **more}) + b"\n"


@pytest.mark.parametrize("coding", [None, "gzip"])
async def test_an_import_stores_the_good_lines_and_names_the_bad(rig: Rig, coding: str | None) -> None:
    lines = [
        line(1),
        b"nonsense\n",
        line(2, tags=["news"]),
        b"\n",
        line(3, app="news"),
        line(4, app="shop"),
        line(5, unknown=1),
        b'{"user":"u6","transport":"apns"}\n',
        b"x" * 70_000 + b"\n",
        line(7, transport="pigeon"),
        line(8).strip(),
    ]
    body = b"".join(lines)
    headers = NDJSON | ({"content-encoding": "gzip"} if coding else {})
    content = gzip.compress(body) if coding else body
    found = (await rig.as_app("POST", f"{PATH}/import", content=content, headers=headers)).json()
    assert found["imported"] == 4
    assert found["bad"] == 6
    assert [each["line"] for each in found["errors"]] == [2, 5, 7, 8, 9, 10]
    assert all(each["error"] for each in found["errors"])
    assert len(await listed(rig)) == 4
    assert await listed(rig, "news") == []


async def test_an_import_without_a_line_feed_is_read_in_bounded_memory(rig: Rig) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield line(1)
        for _ in range(1000):
            yield b"x" * 65_536
        yield b"\n" + line(2)

    tracemalloc.start()
    answer = await rig.as_app("POST", f"{PATH}/import", content=endless(), headers=NDJSON)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (answer.json()["imported"], answer.json()["bad"]) == (2, 1), answer.text
    assert peak < 10_000_000  # of 65 MB


async def test_an_import_that_storage_cannot_take_says_what_is_stored(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = rig.engine.storage.register
    calls = 0

    async def register(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StorageFull("There is no room on the disk of /secret/path.")
        return await real(*arguments)

    monkeypatch.setattr(rig.engine.storage, "register", register)
    body = b"".join(line(n) for n in range(20_001))
    answer = await rig.as_app("POST", f"{PATH}/import", content=body, headers=NDJSON)
    assert answer.status_code == 507
    assert "10,000 lines" in answer.json()["error"]["message"]
    assert "/secret" not in answer.text


async def test_an_import_says_what_it_is(rig: Rig) -> None:
    for kind in ("application/json", "text/plain", ""):
        answer = await rig.as_app("POST", f"{PATH}/import", content=line(1), headers={"content-type": kind})
        assert answer.status_code == 415


async def test_a_shorter_bound_of_lines_is_kept(tmp_path: Path) -> None:
    async with running(tmp_path, limits=Limits(import_line_bytes=200)) as rig:
        body = line(1) + line(2, tags=["x" * 300])
        found = (await rig.as_app("POST", f"{PATH}/import", content=body, headers=NDJSON)).json()
        assert (found["imported"], found["bad"]) == (1, 1)
        assert "200 bytes" in found["errors"][0]["error"]


@pytest.mark.parametrize("user", ["alice", "a/b", "a b@ü/ö", "v1/users/x?y#z"])
async def test_a_user_is_forgotten_whole(rig: Rig, user: str) -> None:
    await entered(rig, "hers", user=user)
    await entered(rig, "somebody-elses", user="bob")
    await rig.service.feed.post("shop", f"user:{user}", NewItem(content={"a": 1}))
    url = rig.http.base_url.copy_with(raw_path=b"/v1/users/" + quote(user, safe="").encode())
    answer = await rig.as_app("DELETE", str(url))
    assert answer.json() == {"endpoints": 1}, answer.text
    assert await listed(rig, user=user) == []
    assert len(await listed(rig, user="bob")) == 1
    assert await rig.history(user) == []


@pytest.mark.parametrize("tail", ["%0A", "%0Ax", "x%0A"])
async def test_a_line_break_makes_no_other_user_of_a_path(rig: Rig, tail: str) -> None:
    await entered(rig, "hers", user="alice")
    answer = await rig.as_app("DELETE", f"/v1/users/alice{tail}")
    assert answer.status_code == 400, answer.text
    assert len(await listed(rig, user="alice")) == 1
    assert (await rig.http.delete(f"/v1/users/alice{tail}")).status_code == 401


@pytest.mark.parametrize("query", ["user=alice&user=bob", "user=alice&%75ser=bob", "user=&user=alice"])
async def test_a_parameter_that_is_named_twice_is_not_guessed(rig: Rig, query: str) -> None:
    await entered(rig, "hers", user="alice")
    answer = await rig.as_app("GET", f"{PATH}?{query}")
    assert (answer.status_code, "twice" in answer.text) == (400, True)
    assert (await rig.as_app("GET", f"{PATH}?user=alice&binding=apns")).status_code == 200


async def test_an_erased_user_gets_nothing_of_what_was_queued(rig: Rig) -> None:
    await entered(rig)
    posted = await rig.as_app(
        "POST", "/v1/notifications", json={"target": {"user": "alice"}, "title": "x", "at": "+1h"}
    )
    assert posted.status_code == 202
    assert (await rig.as_app("DELETE", "/v1/users/alice")).json() == {"endpoints": 1}
    await rig.as_app("POST", "/v1/notifications", json={"target": {"user": "alice"}, "title": "x"})
    await rig.as_app("POST", f"/v1/notifications/{posted.json()['id']}/cancel")
    await rig.quiet()
    assert rig.gateways.pushes == []
