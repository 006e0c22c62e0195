"""A stand-in for Apple: the checks of the real gateway, in its order and with its words, over TLS on loopback.

Facts about the real one come from "Sending notification requests to APNs", "Establishing a token-based connection to
APNs" and "Handling notification responses from APNs"; nothing here has been compared with Apple's servers.
"""

from __future__ import annotations

import base64
import re
from hashlib import blake2b
from typing import Any, ClassVar, Literal, Unpack
from uuid import uuid4

import orjson
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import NameOID

from fanout.testing.simulator import Answer, Http2SimulatorOptions, Peer, Push, Reply, Request, Simulator
from fanout_apns.outcome import TABLE
from fanout_apns.payload import SUFFIXES

__all__ = ["REASONS", "ApnsSimulator"]

REASONS: dict[str, int] = {reason: status for status, reason in TABLE}
"""Every reason that the transport knows, with the status that it comes with."""

_TOKEN_AGE = 3600
_TOKEN_SPACING = 20 * 60
_PREFIXES = {"dead": "deaddead", "bad": "bad0bad0", "other": "07007007", "throttled": "42942942", "slow": "51005100"}
_BEHAVIOURS = {prefix: word for word, prefix in _PREFIXES.items()}
_PATH = re.compile(r"/3/device/([^/?]*)")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){16,100}")
_LEAN_ADDRESS = re.compile(rb"/3/device/([0-9a-f]+)")
_LEAN_DELIVERY = re.compile(rb"apns-id.([0-9a-f]{8}-[0-9a-f-]{27})", re.DOTALL)
_LEAN_NOTIFICATION = re.compile(rb'"fanout":\{"id":"([0-9a-f-]{36})"')


class ApnsSimulator(Simulator):
    """Apple's gateway for one app.

    `auth` is `token` or `certificate`. Device tokens made by `address` behave by their first digits: `dead` is answered
    410 since `dead_since` (UNIX seconds), `bad` 400, `other` belongs to another app, `throttled` is told `retry-after`
    one second once and then accepted, `slow` is answered `slow` seconds late. `devices` maps any other token to one of
    these words.
    """

    name: ClassVar[str] = "apns"
    behaviours: ClassVar[tuple[str, ...]] = ("good", "dead", "bad", "other", "throttled", "slow")
    team_id: ClassVar[str] = "SIMULATED0"
    key_id: ClassVar[str] = "SIMKEY0000"

    def __init__(
        self,
        *,
        topic: str = "com.example.app",
        auth: Literal["token", "certificate"] = "token",
        environment: Literal["production", "sandbox"] = "production",
        slow: float = 0.2,
        dead_since: float | None = None,
        **options: Unpack[Http2SimulatorOptions],
    ) -> None:
        super().__init__(client_certificates=auth == "certificate", **options)
        self.topic = topic
        self.auth = auth
        self.environment = environment
        self.slow = slow
        self.dead_since = dead_since
        self.devices: dict[str, str] = {}
        self._throttled: set[str] = set()
        self._verified: dict[str, tuple[str, float]] = {}
        self._payloads: dict[bytes, tuple[str, str]] = {}
        self._key = self._load_key()
        self._public_key = self._key.public_key()

    # -- the parts that a client needs

    @property
    def key(self) -> str:
        """The text of the .p8 file that this simulator believes."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    def settings(self) -> dict[str, Any]:
        common = {
            "topic": self.topic,
            "gateway": self.url,
            "ca_file": self.ca_file,
            "environment": self.environment,
        }
        if self.auth == "token":
            return common | {"team_id": self.team_id, "key_id": self.key_id, "key": self.key}
        certificate, key = self.authority.client(self.topic, name="push")
        return common | {"cert_file": str(certificate), "cert_key_file": str(key)}

    @classmethod
    def address(cls, number: int, behaviour: str = "good") -> str:
        digest = blake2b(f"{behaviour} {number}".encode(), digest_size=32).hexdigest()
        if behaviour == "good":
            return "600d" + digest[4:]
        return _PREFIXES[behaviour] + digest[8:]

    # -- the gateway

    def first_streams(self, certificate: bytes | None) -> int:
        """One, until a request with a valid token was posted; a certificate has proved itself already."""
        return self.streams if self.auth == "certificate" else 1

    def handle(self, request: Request) -> Answer:
        found = _PATH.fullmatch(request.path)
        if found is None:
            return self.error("BadPath", request)
        if request.method != "POST":
            return self.error("MethodNotAllowed", request)
        push_type = request.headers.get("apns-push-type", "alert")
        reason = (
            self._wrong_header(request, push_type)
            or self._wrong_credential(request, push_type)
            or self._wrong_topic(request, push_type)
            or self._wrong_payload(request.body, push_type)
        )
        if reason:
            return self.error(reason, request)
        return self._device(found.group(1), request)

    def error(self, reason: str, request: Request) -> Reply:
        status = REASONS.get(reason, 400)
        content: dict[str, Any] = {"reason": reason}
        headers = self._headers(request)
        if status == 410:
            since = self.dead_since if self.dead_since is not None else self.clock()
            content["timestamp"] = int(since * 1000)
        return Reply(status, headers, orjson.dumps(content), reason=reason)

    def _headers(self, request: Request) -> dict[str, str]:
        headers = {"apns-id": request.headers.get("apns-id") or str(uuid4()).upper()}
        if self.environment == "sandbox":
            headers["apns-unique-id"] = str(uuid4())
        return headers

    def _wrong_header(self, request: Request, push_type: str) -> str:
        given = request.headers
        if len(given) != len(request.fields):
            return "DuplicateHeaders"
        if "apns-id" in given and not _is_uuid(given["apns-id"]):
            return "BadMessageId"
        if push_type not in SUFFIXES:
            return "InvalidPushType"
        priority = given.get("apns-priority", "10")
        if priority not in ("1", "5", "10") or (push_type == "background" and priority == "10"):
            return "BadPriority"
        expiration = given.get("apns-expiration", "0")
        if not (expiration.isascii() and expiration.isdigit() and len(expiration) < 12):
            return "BadExpirationDate"
        if len(given.get("apns-collapse-id", "").encode("latin-1")) > 64:
            return "BadCollapseId"
        if self.auth == "token" and not given.get("apns-topic"):
            return "MissingTopic"
        return ""

    def _wrong_credential(self, request: Request, push_type: str) -> str:
        if self.auth == "certificate":
            if request.peer.certificate is None or push_type == "location":
                return "Forbidden" if request.peer.certificate is None else "TopicDisallowed"
            return ""
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not text:
            return "MissingProviderToken"
        if text not in self._verified:
            if len(self._verified) >= 1000:
                self._verified.clear()
            self._verified[text] = self._verify(text)
        reason, issued_at = self._verified[text]
        now = self.clock()
        if reason or issued_at > now + 300:
            return reason or "InvalidProviderToken"
        if now - issued_at > _TOKEN_AGE:
            return "ExpiredProviderToken"
        return self._changed_too_often(request, text, now)

    def _changed_too_often(self, request: Request, text: str, now: float) -> str:
        """Apple counts new tokens per connection; the connection's first one is free."""
        state = request.peer.state
        changes: dict[str, float] = state.setdefault("tokens", {})
        if text not in changes:
            if changes and now - max(changes.values()) < _TOKEN_SPACING:
                return "TooManyProviderTokenUpdates"
            changes[text] = now
            request.peer.streams = self.streams
        return ""

    def _verify(self, text: str) -> tuple[str, float]:
        """("" or a reason, iat) of a JWT."""
        try:
            header, claims, signature = (_decode(part) for part in text.split("."))
            described, claimed = orjson.loads(header), orjson.loads(claims)
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            signed = text.rpartition(".")[0].encode()
            self._public_key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
            issued_at = claimed["iat"]
        except (InvalidSignature, KeyError, TypeError, ValueError):
            return "InvalidProviderToken", 0.0
        right = (
            len(signature) == 64
            and described.get("alg") == "ES256"
            and described.get("kid") == self.key_id
            and claimed.get("iss") == self.team_id
            and isinstance(issued_at, int)
        )
        return ("", float(issued_at)) if right else ("InvalidProviderToken", 0.0)

    def _wrong_topic(self, request: Request, push_type: str) -> str:
        bundle = self.topic
        if self.auth == "certificate":
            bundle = self._certified(request.peer)
            if "apns-topic" not in request.headers and not SUFFIXES[push_type]:
                return ""
        topic = request.headers.get("apns-topic", bundle)
        if push_type == "mdm":
            return ""
        if topic == bundle + SUFFIXES[push_type]:
            return ""
        return "TopicDisallowed" if not topic.startswith(bundle) else "BadTopic"

    def _wrong_payload(self, body: bytes, push_type: str) -> str:
        if len(body) > (5120 if push_type == "voip" else 4096):
            return "PayloadTooLarge"
        return self._read(body)[0]

    def _read(self, body: bytes) -> tuple[str, str]:
        """("" or a reason, the notification's id) of a payload; a broadcast sends the same one again and again."""
        parsed = self._payloads.get(body)
        if parsed is None:
            if len(self._payloads) >= 64:
                self._payloads.clear()
            parsed = self._payloads[body] = _read_payload(body)
        return parsed

    @staticmethod
    def _certified(peer: Peer) -> str:
        """The app that the connection's certificate is for: the UID of its subject."""
        if "topic" not in peer.state:
            assert peer.certificate is not None
            subject = x509.load_der_x509_certificate(peer.certificate).subject
            peer.state["topic"] = str(subject.get_attributes_for_oid(NameOID.USER_ID)[0].value)
        return str(peer.state["topic"])

    def _device(self, token: str, request: Request) -> Reply:
        if not token:
            return self.error("MissingDeviceToken", request)
        token = token.lower()
        if not _HEX.fullmatch(token) or not token.strip("0"):
            return self.error("BadDeviceToken", request)
        behaviour = self.devices.get(token) or _BEHAVIOURS.get(token[:8], "good")
        match behaviour:
            case "dead":
                return self.error("Unregistered", request)
            case "bad":
                return self.error("BadDeviceToken", request)
            case "other":
                return self.error("DeviceTokenNotForTopic", request)
            case "throttled" if token not in self._throttled:
                self._throttled.add(token)
                refusal = self.error("TooManyRequests", request)
                return Reply(
                    refusal.status, {**refusal.headers, "retry-after": "1"}, refusal.body, reason=refusal.reason
                )
        headers = self._headers(request)
        push = Push(headers["apns-id"].lower(), _digest(token), self._read(request.body)[1])
        return Reply(200, headers, push=push, after=self.slow if behaviour == "slow" else 0.0)

    def lean_push(self, block: bytes, body: bytes) -> Push | None:
        address, delivery = _LEAN_ADDRESS.search(block), _LEAN_DELIVERY.search(block)
        if address is None or delivery is None:
            return None
        notification = _LEAN_NOTIFICATION.search(body)
        named = notification.group(1).decode() if notification is not None else ""
        return Push(delivery.group(1).decode(), _digest(address.group(1).decode()), named)

    def _load_key(self) -> ec.EllipticCurvePrivateKey:
        """The key in the simulator's folder, made if it is not there: a client that trusts this simulator can go on
        after a restart."""
        file = self.folder / f"AuthKey_{self.key_id}.p8"
        if file.exists():
            key = serialization.load_pem_private_key(file.read_bytes(), None)
            if isinstance(key, ec.EllipticCurvePrivateKey):
                return key
        key = ec.generate_private_key(ec.SECP256R1())
        file.touch(mode=0o600)
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return key


def _read_payload(body: bytes) -> tuple[str, str]:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "PayloadEmpty", ""  # Apple documents no word for a body that is no JSON; this is the nearest
    if not isinstance(content, dict) or not content:
        return "PayloadEmpty", ""
    about = content.get("fanout")
    named = about.get("id") if isinstance(about, dict) else None
    return "", named if isinstance(named, str) and _is_uuid(named) else ""


def _digest(token: str) -> str:
    return blake2b(token.encode(), digest_size=16).hexdigest()


def _is_uuid(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
