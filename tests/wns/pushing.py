"""What the tests of the WNS transport share."""

from __future__ import annotations

import uuid
from typing import Any

from fanout.plugin import (
    Delivery,
    Notification,
)

NOTE = Notification(title="t", body="b", id="01890a5d-ac96-774b-bcce-b302099a8057")


def delivery(transport: Any, raw: str, **values: Any) -> Delivery:
    values.setdefault("id", str(uuid.uuid5(uuid.NAMESPACE_OID, raw)))
    return Delivery.of(transport.parse_address(raw), **values)
