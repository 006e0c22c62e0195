"""`GET /v1/me`: a key that stands for the user of the token, and for nobody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servicerig import Rig

from fanout.service.v1.me import user_key

names = st.text(max_size=12)


@pytest.mark.anyio
async def test_me_names_app_and_key_and_not_the_user(rig: Rig) -> None:
    alice, again, bob = [await rig.call("GET", "/v1/me", rig.user_token(user)) for user in ("alice", "alice", "bob")]
    assert alice.json() == again.json() == {"app": "shop", "key": user_key("shop", "alice")}
    assert bob.json()["key"] != alice.json()["key"]
    assert "alice" not in alice.text
    assert alice.headers["cache-control"] == "no-store"
    refused = await rig.as_app("GET", "/v1/me")
    assert (refused.status_code, refused.json()["error"]["innerError"]["code"]) == (403, "user_only")


@given(names, names, names, names)
def test_no_two_users_share_a_key(app: str, user: str, other_app: str, other: str) -> None:
    assert (user_key(app, user) == user_key(other_app, other)) == ((app, user) == (other_app, other))
