"""What the tests of the Web Push transport share."""

from __future__ import annotations

import json

from fanout.plugin import (
    Address,
)

VENDORS = ["mozilla", "google", "apple", "edge"]


def endpoint(address: Address) -> str:
    return str(json.loads(address.value)["endpoint"])
