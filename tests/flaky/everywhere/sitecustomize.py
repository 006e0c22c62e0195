"""Imported by every Python process of a run, through PYTHONPATH: its switch interval is the run's, and stays it."""

import os
import sys

_told = os.environ.get("TESTS_SWITCH_INTERVAL")
if _told:
    sys.setswitchinterval(float(_told))
    # `dedicate_process` sets one of its own, and what follows it is to be tried too.
    sys.setswitchinterval = lambda interval: None
