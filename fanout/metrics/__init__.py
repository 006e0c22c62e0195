"""The readings of a running engine for an operator's tools: Prometheus metrics and OpenTelemetry traces.

Nothing here is on the path of a delivery. Metrics are read from the engine when they are asked for (`render`, or
`Exporter`, which serves them over HTTP and measures the loop's lag besides); traces wrap a transport's `send` at
start-up, and only where a configuration asks for them (`fanout.metrics.tracing`). Imported by `bootstrap`, the service
and the command line.
"""

from fanout.metrics.collector import CONTENT_TYPE, LoopLag, render
from fanout.metrics.exporter import Exporter, listen_address

__all__ = ["CONTENT_TYPE", "Exporter", "LoopLag", "listen_address", "render"]
