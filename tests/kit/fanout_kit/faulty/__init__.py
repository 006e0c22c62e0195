"""Failure on demand: a storage and transports that kill their process, or raise, at a named boundary of the path.

`FANOUT_FAILPOINT=name:hit` in the environment arms one (`failpoints.NAMES` lists them); `python -m fanout_kit.faulty`
is the `fanout` program with more plugins: a storage or transport `faulty-NAME` for each that is installed. Nothing of
it is in a program that does not ask for it, and no module outside of this folder knows of it. Tests and the authors of
plugins import it; its imports follow the rules of `fanout_kit`.
"""

from __future__ import annotations

from fanout_kit.faulty.audit import Audit, audit
from fanout_kit.faulty.disk import Recorder, unpowered
from fanout_kit.faulty.failpoints import NAMES, Failpoint, arm, reached

__all__ = ["NAMES", "Audit", "Failpoint", "Recorder", "arm", "audit", "reached", "unpowered"]
