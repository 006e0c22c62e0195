"""The cost of a delivery, against gateways on loopback; `python -m benchmarks` runs it. May import everything, the kit
of the tests too."""

import tests  # noqa: F401  (tests/kit becomes a source root of this process)
