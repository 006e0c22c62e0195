"""What `/ready` says of issuers."""

from __future__ import annotations

from typing import Any

import pytest

from fanout.testing.issuer import Fault

pytestmark = pytest.mark.anyio


async def ready(rig: Any) -> tuple[int, bool, str]:
    answer = await rig.http.get("/ready")
    found = answer.json()
    return answer.status_code, found["ready"], found["issuers"]


async def test_an_issuer_in_trouble_is_told_and_others_are_served(rig: Any) -> None:
    assert await ready(rig) == (200, True, "ok")
    rig.issuer.faults["keys"] = Fault(status=503)
    assert (await rig.call("GET", "/v1/me/feed", rig.user_token("alice"))).status_code == 503
    assert await ready(rig) == (200, True, "failed")
    assert (await rig.as_app("GET", "/v1/endpoints")).status_code == 200
    del rig.issuer.faults["keys"]
    assert set((await rig.service.authenticator.refresh()).values()) == {""}
    assert (await rig.call("GET", "/v1/me/feed", rig.user_token("alice"))).status_code == 200
    assert await ready(rig) == (200, True, "ok")


async def test_while_the_last_keys_serve_it_is_only_stale(rig: Any) -> None:
    assert (await rig.call("GET", "/v1/me/feed", rig.user_token("alice"))).status_code == 200
    rig.issuer.faults["discovery"] = Fault(down=True)
    assert set((await rig.service.authenticator.refresh()).values()) != {""}
    assert await ready(rig) == (200, True, "stale")
    assert (await rig.call("GET", "/v1/me/feed", rig.user_token("bob"))).status_code == 200
