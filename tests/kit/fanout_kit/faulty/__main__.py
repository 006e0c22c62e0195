"""The `fanout` program with failpoints: `FANOUT_FAILPOINT=settle.inside:3 python -m fanout_kit.faulty work --config
FILE`.

In FILE, `storage = "faulty-sqlite:PATH"` and `type = "faulty-apns"` name the parts that can fail. Without arguments it
lists the failpoints.
"""

from __future__ import annotations

import runpy
import sys

from fanout_kit.faulty.failpoints import NAMES, arm
from fanout_kit.faulty.installed import install


def main() -> None:
    """Install the plugins, arm the failpoint, and be `fanout`."""
    if len(sys.argv) == 1:
        width = max(map(len, NAMES))
        print("\n".join(f"{name:{width}}  {moment}" for name, moment in NAMES.items()))  # noqa: T201
        return
    install()
    arm()
    runpy.run_module("fanout", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
