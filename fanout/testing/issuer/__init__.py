"""A loopback OAuth 2.0 issuer: discovery, a key set, and a token endpoint with the flows that the service's callers
use.

For tests of the service and its clients, and for trying both without an identity provider. `LoopbackIssuer` is the
door; `keys` signs, `tokens` decides the claims of a token, `grants` answers the token endpoint, and `server` is the
HTTP around them. Its keys are made on the spot and its users are the named ones: nothing that it says is worth anything
outside of loopback. It needs the extra `service` (PyJWT), and imports aiohttp.
"""

from fanout.testing.issuer.grants import Client
from fanout.testing.issuer.keys import KeyRing, SigningKey
from fanout.testing.issuer.server import Fault, LoopbackIssuer

__all__ = ["Client", "Fault", "KeyRing", "LoopbackIssuer", "SigningKey"]
