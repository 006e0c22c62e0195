"""Stand-ins for gateways: an HTTP/2 server over TLS on loopback that answers as a provider would, and misbehaves when
told to.

A transport's `simulator.py` subclasses `Simulator` (`Http1Simulator` for HTTP/1.1) and gives its gateway's answers
in `handle`. The server's wire format, its failures (`Faults`), its memory (`Counters`, the ledger) and its process
(`python -m fanout.testing.simulator NAME`) are here. Its frame code shares nothing with `fanout.http`, so that an error
in one is not hidden by the same error in the other. Simulators, tests, benchmarks and the demo import it.
"""

from fanout.testing.simulator.answers import Answer, Disconnect, Peer, Push, Reply, Request, Reset, Stall
from fanout.testing.simulator.base import Http2SimulatorOptions, Simulator, SimulatorOptions
from fanout.testing.simulator.certificates import Authority
from fanout.testing.simulator.counters import Counters
from fanout.testing.simulator.faults import Faults
from fanout.testing.simulator.http1 import Http1Simulator
from fanout.testing.simulator.ledger import Entry, Ledger, read_ledger

__all__ = [
    "Answer", "Authority", "Counters", "Disconnect", "Entry", "Faults", "Http1Simulator", "Http2SimulatorOptions", "Ledger", "Peer", "Push",
    "Reply", "Request", "Reset", "Simulator", "SimulatorOptions", "Stall", "read_ledger",
]  # fmt: skip
