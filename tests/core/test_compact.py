"""What is kept holds no more memory than it has bytes."""

from __future__ import annotations

import subprocess
import sys

import pytest

_MEASURE = """
import gc, sys, orjson
from pathlib import Path
{prepare}

def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

kept = [make(n) for n in range(500)]
before = resident()
kept += [make(n) for n in range(8000)]
print((resident() - before) / 8000)
"""

_MAKERS = {
    "compact": """
from fanout.core.compact import compact
make = lambda n: compact(orjson.dumps({"k": "x" * 580, "n": n}))
""",
    "content": """
from fanout import Notification
from fanout.core.codec import encode
make = lambda n: encode(Notification(title="t", body="x" * 560, data={"n": n}))
""",
    "apns": """
from fanout import Notification
from fanout_apns.payload import encode
make = lambda n: encode(Notification(title="t", body="x" * 560, data={"n": n}), "com.example.app", {}).payload
""",
    "wns": """
from fanout import Notification
from fanout_wns.payload import encode
make = lambda n: encode(Notification(data={"n": str(n), "text": "x" * 560}), {}).body
""",
    "webpush": """
from fanout import Notification
from fanout_webpush.payload import encode
make = lambda n: encode(Notification(title="t", body="x" * 560, data={"n": n}), {}).record
""",
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
@pytest.mark.parametrize("what", _MAKERS)
def test_six_hundred_bytes_take_less_than_a_kilobyte(what: str) -> None:
    program = _MEASURE.format(prepare=_MAKERS[what])
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(found.stdout) < 1_100
