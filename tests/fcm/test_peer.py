"""Google's own library as a client of the simulator: what we take for Google's rules is at least what Google's library
lives by."""

from __future__ import annotations

import asyncio
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import orjson
import pytest

from fanout.testing.simulator import read_ledger
from fanout_fcm.simulator import FcmSimulator

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(find_spec("firebase_admin") is None, reason="firebase-admin is missing: pip install '.[bench]'"),
]

PROGRAM = """
import asyncio, json, sys
import firebase_admin
from firebase_admin import credentials, messaging

account, url, tokens = json.load(sys.stdin)
messaging._MessagingService.FCM_URL = url + "/v1/projects/{0}/messages:send"
firebase_admin.initialize_app(credentials.Certificate(account))
batch = [
    messaging.Message(
        token=token,
        notification=messaging.Notification("T", "B", "https://example.com/i.png"),
        data={"k": "v"},
        android=messaging.AndroidConfig(
            ttl=3.5,
            priority="high",
            collapse_key="k",
            notification=messaging.AndroidNotification(icon="i", color="#112233", priority="max", notification_count=2),
        ),
        apns=messaging.APNSConfig(
            headers={"apns-priority": "5"},
            payload=messaging.APNSPayload(messaging.Aps(badge=1, sound="default", thread_id="t")),
        ),
        webpush=messaging.WebpushConfig(
            headers={"TTL": "60"},
            notification=messaging.WebpushNotification(require_interaction=True),
            fcm_options=messaging.WebpushFCMOptions(link="https://example.com"),
        ),
        fcm_options=messaging.FCMOptions("label"),
    )
    for token in tokens
]
response = asyncio.run(messaging.send_each_async(batch))
print(json.dumps([type(one.exception).__name__ for one in response.responses]))
"""


async def test_firebase_admin_meets_the_gateway_that_it_expects(folder: Path, tmp_path: Path) -> None:
    words = ("good", "fid", "dead", "bad", "other", "ios", "throttled")
    async with FcmSimulator(folder=folder, ledger=tmp_path / "ledger") as google:
        account = orjson.loads(google.service_account) | {"token_uri": google.tokens.endpoint}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "ignore", "-c", PROGRAM),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"SSL_CERT_FILE": google.ca_file, "REQUESTS_CA_BUNDLE": google.ca_file},
        )
        asked = orjson.dumps([account, google.url, [google.address(1, word) for word in words]])
        out, _ = await process.communicate(asked)
        assert process.returncode == 0
        assert orjson.loads(out) == [
            "NoneType",
            "NoneType",
            "UnregisteredError",
            "InvalidArgumentError",
            "SenderIdMismatchError",
            "ThirdPartyAuthError",
            "QuotaExceededError",
        ]
        assert google.tokens.counters.rejected == {}
        assert google.counters.violations == []
    assert len(list(read_ledger(tmp_path / "ledger"))) == 2
