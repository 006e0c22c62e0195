"""The protocol of the drivers: one line in, "ready" out, then a run for each line.

1. The driver reads a job: one line of JSON. It warms up with `warmUp` requests and prints "ready".
2. For each further line it makes `requests` requests, and prints one line of JSON: `requests`, `cpu` (seconds of its
   process) and `wall` (seconds); a queue of jobs also `accepted`, the seconds until the last was taken over.
3. At the end of its input it ends.

Every job has `atOnce`, the requests under way at a time, `requests` and `warmUp`; the rest is the driver's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.contenders.rivals import Rival, built
from benchmarks.rig import CLIENT_CPU, Sample

__all__ = ["Driver", "driven", "started"]


class Driver:
    """A driver that is warm."""

    def __init__(self, name: str, process: subprocess.Popen[str], log: Path) -> None:
        self.name = name
        self.accepted: list[float] = []
        """Seconds until the last was taken over, of each run."""
        self._process = process
        self._log = log

    def line(self, said: str) -> str:
        """Its answer to a line. Raises `RuntimeError` with its last words if it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(said + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            answer = ""
        else:
            answer = self._process.stdout.readline().strip()
        if not answer:
            raise RuntimeError(f"The driver of {self.name} ended:\n{self._log.read_text()[-2000:]}")
        return answer

    def run(self, server_cpu: Callable[[], float]) -> Sample:
        """One run; `server_cpu` gives the seconds of CPU that the answering process has used so far."""
        before = server_cpu()
        found = json.loads(self.line("go"))
        if "accepted" in found:
            self.accepted.append(found["accepted"])
        return Sample(found["requests"], found["cpu"], server_cpu() - before, found["wall"])


@contextmanager
def started(name: str, folder: Path, command: Sequence[str], job: Mapping[str, Any]) -> Iterator[Driver]:
    """A driver on the client's CPU, warm, until the block ends."""
    pinned = ["taskset", "-c", str(CLIENT_CPU), *command] if shutil.which("taskset") is not None else list(command)
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log"
        with (
            log.open("w") as errors,
            subprocess.Popen(
                pinned,
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {"NODE_EXTRA_CA_CERTS": str(job.get("ca", ""))},
            ) as process,
        ):
            driver = Driver(name, process, log)
            try:
                if (answer := driver.line(json.dumps(job))) != "ready":
                    raise RuntimeError(f"The driver of {name} did not get ready: {answer}")
                yield driver
            finally:
                assert process.stdin is not None
                try:
                    process.stdin.close()
                    process.wait(10)
                except (BrokenPipeError, subprocess.TimeoutExpired):
                    process.kill()


@contextmanager
def driven(rival: Rival, job: Mapping[str, Any]) -> Iterator[Driver]:
    """A contender, warm, until the block ends. `job` needs no `warmUp`. Raises `Absent`."""
    folder, command = built(rival)
    warm_up = max(rival.warm_up, job["requests"] // 10)
    with started(rival.name, folder, command, {"warmUp": warm_up, **job}) as driver:
        yield driver
