"""The suite. `tests/kit` is a source root: this process and those that it starts find it, however the checkout was
installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_KIT = str(Path(__file__).parent / "kit")
if _KIT not in sys.path:
    sys.path.insert(0, _KIT)
_known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
if _KIT not in _known:
    os.environ["PYTHONPATH"] = os.pathsep.join([_KIT, *filter(None, _known)])
