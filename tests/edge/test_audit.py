"""`GET /v1/audit`: what was done to an app, for an operator's key of that app alone, with the caller and without a
user's id."""

from __future__ import annotations

import pytest
from edgerig import APP_KEY, OTHER_KEY, request, running

from fanout.config import ApiKeySettings

pytestmark = pytest.mark.anyio


async def test_an_operator_reads_what_its_app_did_and_nobody_else_does() -> None:
    operator = ApiKeySettings(id=OTHER_KEY.id, hash=OTHER_KEY.hash, role="operator")
    app = ApiKeySettings(id=APP_KEY.id, hash=APP_KEY.hash)
    async with running(keys=(app, operator)) as rig:
        does, reads = (f"Authorization: Bearer {key.key.reveal()}" for key in (APP_KEY, OTHER_KEY))
        assert (await rig.one(request("DELETE", "/v1/users/alice-77", does))).status == 200
        assert (await rig.one(request("DELETE", "/v1/users/bob-88", does))).status == 200
        assert (await rig.one(request("GET", "/v1/audit", does))).status == 403
        assert (await rig.one(request("GET", "/v1/audit"))).status == 401
        answer = await rig.one(request("GET", "/v1/audit?limit=1&kind=audit.user", reads))
        page = answer.json()
        (line,) = page["lines"]
        assert (line["kind"], line["data"]["by"]) == ("audit.user.erased", f"key:{APP_KEY.id}")
        assert b"alice-77" not in answer.body
        rest = (await rig.one(request("GET", f"/v1/audit?cursor={page['cursor']}", reads))).json()
        assert [each["id"] > line["id"] for each in rest["lines"]] == [True]
        end = (await rig.one(request("GET", f"/v1/audit?cursor={rest['cursor']}", reads))).json()
        assert end == {"lines": [], "cursor": rest["cursor"]}
        assert (await rig.one(request("GET", "/v1/audit?since=99999999999", reads))).json()["lines"] == []
