"""The provider token: an ES256 JWT that every connection of one team and key shares, made ahead of need and never while
sending.

Apple's "Establishing a token-based connection to APNs": a token is refused an hour after its `iat`, and must not be
renewed more than once in 20 minutes. The `iat` is rounded down to a slot and the signature is deterministic where
OpenSSL can (RFC 6979), so that processes that start within one slot present the same token, not each its own. Where
processes share a database, the token stands there: a process that finds no valid one signs one and offers it, and all
present the first.
"""

from __future__ import annotations

import base64
import hashlib
from enum import Enum
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import orjson

from fanout.plugin import ConfigurationError, Fleetwide, Secret, SharedToken, StorageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey

__all__ = ["CLOCK_SLACK", "LIFETIME", "OLD", "SLOT", "SPACING", "Expired", "ProviderToken", "shared_token"]

SLOT = 600
"""Seconds to which `iat` is rounded down."""
CLOCK_SLACK = 30
"""Seconds by which `iat` lies further back, so that a clock slightly ahead of Apple's signs no token of the future."""
LIFETIME = 46 * 60
"""Age in seconds (since `iat`) at which a token is renewed: at most 47 minutes with the timer's delay, of the 60
allowed."""
SPACING = 20 * 60
"""Seconds between two new tokens, at least."""
ENDS = 60 * 60
"""Age from which Apple takes it no more."""
OLD = 50 * 60
"""A token of this age that Apple calls expired has expired; a younger one says that a clock is wrong."""


class Expired(Enum):
    """The reaction to an `ExpiredProviderToken` answer."""

    REPLACED = "replaced"  # a newer token is there already: send again
    CLOCK = "clock"  # our token is young, so this machine's clock is wrong


class ProviderToken:
    """The token of one (team, key). `text` is the JWT; times are UNIX seconds, `monotonic` seconds that never jump.

    `generation` grows with every change, so that an answer to an old token can be told from one to the present.
    """

    __slots__ = (
        "__weakref__",
        "_algorithm",
        "_held_until",
        "_iat",
        "_key",
        "_made_at",
        "_previous",
        "_refused",
        "generation",
        "key_id",
        "name",
        "team_id",
        "text",
    )

    def __init__(self, team_id: str, key_id: str, key: Secret) -> None:
        self.team_id = team_id
        self.key_id = key_id
        self._key, self._algorithm = _load(key)
        self.name = f"apns {_fingerprint(team_id, key_id, self._key)}"
        self._iat = 0.0
        self._made_at: float | None = None
        self._held_until: float | None = None
        self._previous: tuple[str, float] | None = None
        self._refused = ""
        self.generation = 0
        self.text = ""

    def __repr__(self) -> str:
        return f"<ProviderToken {self.generation} of key {self.key_id}>"

    def refresh(self, now: float, monotonic: float) -> bool:
        """Make a new token if it is time. True if there is a new one. Signing takes about 50 microseconds."""
        if self.text and (self._good(now) or not self._may_renew(monotonic)):
            return False
        self._make(now, monotonic)
        return True

    async def refresh_shared(self, fleet: Fleetwide, now: float, monotonic: float) -> bool:
        """As `refresh`, with the token that all processes share. Signs for this process alone where storage does not
        answer."""
        if self.text and (self._good(now) or not self._may_renew(monotonic)):
            return False
        try:
            standing = await fleet.token(self.name)
            spacing = SPACING if standing is None else self._in_the_way(standing, now)
            if spacing is not None:
                iat, text = self._signed(now)
                standing = await fleet.token(self.name, offer=SharedToken(text, now, iat + ENDS), spacing=spacing)
        except StorageError:
            standing = None
        if standing is None or standing.from_the_future(now):
            self._make(now, monotonic)
        elif standing.text == self.text:
            return False
        else:
            self._adopt(standing, now, monotonic)
        return True

    def expired(self, generation: int, now: float, monotonic: float, *, shared: bool = False) -> Expired:
        """Apple refused the token of `generation` as expired. A `shared` one is not replaced here: `refresh_shared` is
        due."""
        if generation != self.generation:
            return Expired.REPLACED
        self._refused = self.text
        if now - self._iat < OLD or not self._may_renew(monotonic):
            return Expired.CLOCK
        if not shared:
            self._make(now, monotonic)
        return Expired.REPLACED

    def hold(self, now: float, monotonic: float) -> None:
        """Apple said that tokens change too often: no new one for 20 minutes, and back to the former while it is
        valid."""
        if self._held_until is not None and monotonic < self._held_until:
            return
        self._held_until = monotonic + SPACING
        if self._previous is not None and now - self._previous[1] < OLD:
            self.text, self._iat = self._previous
            self._previous = None
            self.generation += 1

    def drop_refused(self) -> bool:
        """An operator says that the fault is mended, a clock perhaps: a token that was refused as expired is not
        presented again, and another may be made at once. Whether there was one."""
        if not self.text or self.text != self._refused:
            return False
        self.text, self._made_at = "", None
        return True

    def _good(self, now: float) -> bool:
        """Whether the present token may be presented for a while. One from the future was made before the clock was set
        back: it is refused until the time comes again."""
        return 0 <= now - self._iat < LIFETIME and self.text != self._refused

    def _in_the_way(self, standing: SharedToken, now: float) -> float | None:
        """The spacing with which another is to be offered in place of the standing token; None where that is good.

        One that was refused, or is from the future, gives way for all processes; one that a process has put there since
        does not.
        """
        if standing.from_the_future(now):
            return 0.0
        if standing.text == self._refused:
            return max(0.0, min(SPACING, now - standing.made_at))
        return SPACING if now - (standing.expires_at - ENDS) >= LIFETIME else None

    def _may_renew(self, monotonic: float) -> bool:
        if self._held_until is not None and monotonic < self._held_until:
            return False
        return self._made_at is None or monotonic - self._made_at >= SPACING

    def _make(self, now: float, monotonic: float) -> None:
        self._take(*self._signed(now), monotonic)

    def _adopt(self, standing: SharedToken, now: float, monotonic: float) -> None:
        made_at = monotonic - max(0.0, now - standing.made_at)
        self._take(standing.expires_at - ENDS, standing.text, made_at)

    def _take(self, iat: float, text: str, made_at: float) -> None:
        if self.text:
            self._previous = (self.text, self._iat)
        self._iat, self.text, self._made_at = iat, text, made_at
        self._held_until = None
        self.generation += 1

    def _signed(self, now: float) -> tuple[float, str]:
        """A new token: its `iat`, and the JWT."""
        iat = now // SLOT * SLOT - CLOCK_SLACK
        header = {"alg": "ES256", "kid": self.key_id}
        signed = _encode(orjson.dumps(header)) + b"." + _encode(orjson.dumps({"iss": self.team_id, "iat": int(iat)}))
        return iat, (signed + b"." + _encode(self._sign(signed))).decode()

    def _sign(self, data: bytes) -> bytes:
        """The raw r and s of 32 bytes each that JOSE asks for (RFC 7518, section 3.4)."""
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        r, s = decode_dss_signature(self._key.sign(data, self._algorithm))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


_shared: WeakValueDictionary[tuple[str, str, bytes], ProviderToken] = WeakValueDictionary()


def shared_token(team_id: str, key_id: str, key: Secret) -> ProviderToken:
    """The process's one token of this team and key: bindings for several apps or environments share it."""
    digest = hashlib.sha256(key.reveal().encode()).digest()
    identity = (team_id, key_id, digest)
    token = _shared.get(identity)
    if token is None:
        token = _shared[identity] = ProviderToken(team_id, key_id, key)
    return token


def _load(key: Secret) -> tuple[EllipticCurvePrivateKey, ECDSA]:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        loaded = load_pem_private_key(key.reveal().encode(), None)
        if isinstance(loaded, ec.EllipticCurvePrivateKey):
            # Older cryptography does not look whether the two halves in the file belong together.
            probe = loaded.sign(b"", ec.ECDSA(SHA256()))
            loaded.public_key().verify(probe, b"", ec.ECDSA(SHA256()))
    except (TypeError, ValueError, UnsupportedAlgorithm, InvalidSignature):
        loaded = None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey) or not isinstance(loaded.curve, ec.SECP256R1):
        raise ConfigurationError(
            f"key{f' ({key.origin})' if key.origin else ''} is no P-256 private key: "
            "use the AuthKey_….p8 file as Apple gave it, unchanged."
        )
    try:
        return loaded, ec.ECDSA(SHA256(), deterministic_signing=True)
    except UnsupportedAlgorithm:  # OpenSSL before 3.2: the signature differs from process to process, and is as valid
        return loaded, ec.ECDSA(SHA256())


def _fingerprint(team_id: str, key_id: str, key: EllipticCurvePrivateKey) -> str:
    """A name for this credential that tells nothing: of another key, though of the same id, it is another."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(f"{team_id} {key_id} ".encode() + public).hexdigest()[:32]


def _encode(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
