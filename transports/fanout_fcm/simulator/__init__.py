"""A stand-in for Google on loopback: the FCM v1 endpoint over HTTP/2 (`gateway`) with its check of messages (`schema`,
pure), and the OAuth token endpoint over HTTP/1.1 (`tokens`). Tests, benchmarks and the demo import it; the transport
never does.
"""

from fanout_fcm.simulator.gateway import REASONS, FcmSimulator
from fanout_fcm.simulator.tokens import TokenEndpoint

__all__ = ["REASONS", "FcmSimulator", "TokenEndpoint"]
