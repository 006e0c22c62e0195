"""All benchmarks, one after the other: `python -m benchmarks [NAME …] [--quick]`. `benchmarks/README.md` says what they mean.

`python -m benchmarks guard [--update]` counts what a delivery costs, and compares with what it cost before.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
from typing import Any

from benchmarks import http_client
from benchmarks.http_client import Row

QUICK: dict[str, dict[str, Any]] = {
    "http_client": {"rounds": 1, "requests": 5000},
    "broadcast": {"rounds": 1, "devices": 10_000},
    "engine": {"devices": 10_000, "large_devices": 20_000, "sends": 5, "rounds": 1},
    "lanes": {"bulk": 20_000, "sends": 10, "apps": 5, "seconds": 1.0},
    "storage": {"endpoints": 20_000},
    "fcm": {"rounds": 1, "messages": 200},
    "wns": {"rounds": 1, "pushes": 2000},
    "webpush": {"rounds": 1, "browsers": 2000},
    "kills": {"kills": 3},
    "service": {"posts": 100, "users": 20},
}
"""What exists, in order, with small arguments: enough to show that each still runs, too little to quote."""


def main() -> int:
    if sys.argv[1:2] == ["guard"]:
        from benchmarks.guard.command import main as guard

        return guard(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(QUICK)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small runs, to see that they work")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.names if name not in QUICK]
    if unknown:
        print(f"There is no benchmark {unknown[0]!r}; there are {', '.join(QUICK)}.", file=sys.stderr)
        return 2
    print(f"{platform.python_implementation()} {platform.python_version()}; client on CPU 0, gateway on CPU 1")
    for name in chosen.names or QUICK:
        arguments = dict(QUICK[name]) if chosen.quick else {}
        print(f"\n{name}", flush=True)
        module = http_client if name == "http_client" else importlib.import_module(f"benchmarks.{name}")
        rows: list[Row] = module.run(**arguments)
        for row in rows:
            print(f"  {row}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
