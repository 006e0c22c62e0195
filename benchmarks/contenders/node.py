"""The two clients of Node: `@parse/node-apn` and `web-push`, driven by `driver.mjs`.

npm installs them when they are first needed, into a folder of the user's cache: no packages of Node belong to this project.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.rig import CLIENT_CPU, Process, Sample, cpu_of

__all__ = ["PACKAGES", "NodeAbsent", "run", "versions"]

PACKAGES = ("@parse/node-apn@8.1.0", "web-push@3.6.7")
_DRIVER = Path(__file__).with_name("driver.mjs")


class NodeAbsent(Exception):
    """Node, npm or its registry is not to be had; the text is a sentence for a row."""


def folder() -> Path:
    """Where the packages are, installed if need be. Raises `NodeAbsent`."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise NodeAbsent("skipped: install nodejs and npm to compare with web-push and @parse/node-apn")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fanout-benchmarks" / "node"
    mark = cache / "installed.json"
    if mark.exists() and json.loads(mark.read_text()) == list(PACKAGES):
        return cache
    cache.mkdir(parents=True, exist_ok=True)
    words = ["npm", "install", "--prefix", str(cache), "--no-audit", "--no-fund", "--no-save", "--ignore-scripts"]
    try:
        ended = subprocess.run([*words, *PACKAGES], capture_output=True, text=True, check=False, timeout=120)
    except subprocess.TimeoutExpired:
        raise NodeAbsent("skipped: npm could not install web-push and @parse/node-apn within two minutes") from None
    if ended.returncode:
        line = (ended.stderr.strip().splitlines() or ["no reason given"])[0]
        raise NodeAbsent(f"skipped: npm could not install web-push and @parse/node-apn ({line[:80]})")
    mark.write_text(json.dumps(list(PACKAGES)))
    return cache


def versions() -> str:
    """Node's version, for the record."""
    return subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def run(kind: str, process: subprocess.Popen[bytes] | Process, ca_file: Path, job: Mapping[str, Any]) -> Sample:
    """One run on the client's CPU: `kind` is `apns` or `webpush`, `job` what the driver reads. Raises `NodeAbsent`."""
    command = ["node", str(_DRIVER), kind, str(folder())]
    if shutil.which("taskset") is not None:
        command = ["taskset", "-c", str(CLIENT_CPU), *command]
    # The driver says "ready" when it is warm, and waits for a line: what is counted begins and ends with it.
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"NODE_EXTRA_CA_CERTS": str(ca_file)},
    ) as driver:
        assert driver.stdin is not None
        assert driver.stdout is not None
        driver.stdin.write(json.dumps(job) + "\n")
        driver.stdin.flush()
        if driver.stdout.readline().strip() != "ready":
            driver.stdin.close()
            raise RuntimeError(f"The driver of {kind} did not get ready; run `{' '.join(command)}` to see why.")
        before = cpu_of(process)
        driver.stdin.write("go\n")
        driver.stdin.flush()
        text = driver.stdout.readline()
        gateway = cpu_of(process) - before
        driver.stdin.close()
    found = json.loads(text)
    return Sample(found["requests"], found["cpu"], gateway, found["wall"])
