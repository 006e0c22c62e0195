"""The FCM v1 endpoint with its checks and words.

Facts about the real one come from the FCM v1 discovery document (revision 20261023), "FCM error codes" and captured
answers; nothing here has been compared with Google's servers.
"""

from __future__ import annotations

import base64
import re
from hashlib import blake2b
from typing import Any, ClassVar, Self, Unpack
from uuid import UUID

import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fanout.testing.simulator import Answer, Http2SimulatorOptions, Push, Reply, Request, Simulator
from fanout_fcm.simulator.schema import violations
from fanout_fcm.simulator.tokens import TokenEndpoint

__all__ = ["REASONS", "FcmSimulator"]

REASONS: dict[str, tuple[int, str, str]] = {
    "INVALID_ARGUMENT": (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    "INVALID_TOKEN": (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    "UNAUTHENTICATED": (401, "UNAUTHENTICATED", ""),
    "THIRD_PARTY_AUTH_ERROR": (401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"),
    "PERMISSION_DENIED": (403, "PERMISSION_DENIED", ""),
    "SENDER_ID_MISMATCH": (403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
    "NOT_FOUND": (404, "NOT_FOUND", ""),
    "UNREGISTERED": (404, "NOT_FOUND", "UNREGISTERED"),
    "PROJECT_QUOTA": (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
    "DEVICE_QUOTA": (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
    "TOPIC_QUOTA": (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
    "INTERNAL": (500, "INTERNAL", "INTERNAL"),
    "BAD_GATEWAY": (502, "", ""),
    "UNAVAILABLE": (503, "UNAVAILABLE", "UNAVAILABLE"),
    "UNSPECIFIED_ERROR": (500, "UNKNOWN", "UNSPECIFIED_ERROR"),
}
"""Every reason, with the HTTP status, the status word and the FCM error code that it comes with ("" for none).

Written down apart from the transport's table, so that each checks the other.
"""

_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
_QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"
_QUOTAS = {
    "PROJECT_QUOTA": ("project:{project}", "Message rate exceeded for the project."),
    "DEVICE_QUOTA": ("device", "Device message rate exceeded."),
    "TOPIC_QUOTA": ("topic", "Topic message rate exceeded."),
}
_MESSAGES = {
    "INVALID_TOKEN": "The registration token is not a valid FCM registration token",
    "UNREGISTERED": "Requested entity was not found.",
    "UNAUTHENTICATED": "Request had invalid authentication credentials. Expected OAuth 2 access token.",
}
_PAGE = b"<!DOCTYPE html><title>Error 502 (Server Error)!!1</title><p>Please try again in 30 seconds.</p>"
_PATH = re.compile(r"/v1/projects/([^/]+)/messages:send")
_FID = re.compile(r"[c-f][A-Za-z0-9_-]{21}")
_TOKEN = re.compile(r"([c-f][A-Za-z0-9_-]{21}):APA91b([A-Za-z0-9_-]{100,200})")
_MARKS = {"dead": "Dead", "bad": "Bad0", "other": "Else", "throttled": "Slow429", "slow": "Late", "ios": "Appl"}
_ANSWERS = {
    "dead": "UNREGISTERED",
    "bad": "INVALID_TOKEN",
    "other": "SENDER_ID_MISMATCH",
    "ios": "THIRD_PARTY_AUTH_ERROR",
}
_LEAN_ADDRESS = re.compile(rb'"message":\{"(?:token|fid)":"([^"]+)"')
_LEAN_NOTIFICATION = re.compile(rb'"fanout":"\{\\"id\\":\\"([0-9a-f-]{36})\\"')


class FcmSimulator(Simulator):
    """Google's gateway for one project, and its token endpoint (`tokens`).

    Devices made by `address` behave by a mark in their token: `dead` is unregistered, `bad` is no valid token, `other`
    belongs to another project, `ios` meets a wrong Apple credential, `throttled` is told once to wait a second, `slow`
    is answered `slow` seconds late, `fid` is an installation id. `devices` maps any other token or id to one of these
    words. `pause` is the value of a `Retry-After`, in seconds; None leaves it out.
    """

    name: ClassVar[str] = "fcm"
    behaviours: ClassVar[tuple[str, ...]] = ("good", "fid", "dead", "bad", "other", "ios", "throttled", "slow")
    email: ClassVar[str] = "fanout@simulated-project.iam.gserviceaccount.com"
    key_id: ClassVar[str] = "simulated0key0id"
    lean_body: ClassVar[bytes] = b'{"name":"projects/simulated-project/messages/0:1700000000000000%31bd1c96f9fd7ecd"}'

    def __init__(
        self,
        *,
        project: str = "simulated-project",
        slow: float = 0.2,
        **options: Unpack[Http2SimulatorOptions],
    ) -> None:
        options.setdefault("streams", 100)
        super().__init__(**options)
        self.project = project
        self.slow = slow
        self.pause: float | None = None
        self.devices: dict[str, str] = {}
        self._throttled: set[str] = set()
        self._key = self._load_key()
        self.tokens = TokenEndpoint(
            self._key.public_key(), self.email, self.key_id, folder=self.folder, host=self._host, clock=self.clock
        )

    async def __aenter__(self) -> Self:
        await self.tokens.__aenter__()
        await super().__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.tokens.__aexit__(*exc)
        await super().__aexit__(*exc)

    # -- the parts that a client needs

    @property
    def service_account(self) -> str:
        """The text of the JSON file that this simulator believes."""
        key = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return orjson.dumps(
            {
                "type": "service_account",
                "project_id": self.project,
                "private_key_id": self.key_id,
                "private_key": key.decode(),
                "client_email": self.email,
                "token_uri": "https://oauth2.googleapis.com/token",
            }
        ).decode()

    def settings(self) -> dict[str, Any]:
        return {
            "service_account": self.service_account,
            "gateway": self.url,
            "token_url": self.tokens.endpoint,
            "ca_file": self.ca_file,
            "rate_per_minute": 0,  # a simulator has no quota
        }

    @classmethod
    def address(cls, number: int, behaviour: str = "good") -> str:
        seed = f"{behaviour} {number}".encode()
        fid = "d" + _base64(blake2b(seed, digest_size=18).digest())[:21]
        if behaviour == "fid":
            return fid
        mark = _MARKS.get(behaviour, "H")
        return f"{fid}:APA91b{mark}-{_base64(blake2b(seed, digest_size=64).digest())}{_base64(blake2b(seed).digest())[:44]}"

    # -- the gateway

    def handle(self, request: Request) -> Answer:
        found = _PATH.fullmatch(request.path)
        if found is None or request.method != "POST":
            return self.error("NOT_FOUND", request)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self.tokens.knows(token):
            return self.error("UNAUTHENTICATED", request)
        if found.group(1) != self.project:
            return self.error("PERMISSION_DENIED", request)
        try:
            body = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            return self._invalid([("", "Invalid JSON payload received.")])
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return self._invalid([("", "Invalid JSON payload received. Unknown content type")])
        if not isinstance(body, dict) or not set(body) <= {"message", "validateOnly", "validate_only"}:
            return self._invalid([("", "Invalid JSON payload received. Unknown name")])
        message = body.get("message")
        wrong = violations(message) if isinstance(message, dict) else [("message", "must be set")]
        if wrong:
            return self._invalid(wrong)
        assert isinstance(message, dict)
        return self._device(request, message, bool(body.get("validateOnly", body.get("validate_only"))))

    def error(self, reason: str, request: Request) -> Reply:
        http, status, code = REASONS.get(reason, (400, "INVALID_ARGUMENT", reason))
        headers = {"content-type": "application/json; charset=UTF-8"}
        if self.pause is not None and http in (429, 502, 503):
            headers["retry-after"] = f"{self.pause:g}"
        if not status:
            return Reply(http, {**headers, "content-type": "text/html"}, _PAGE, reason=reason)
        details: list[dict[str, Any]] = [{"@type": _FCM_ERROR, "errorCode": code}] if code else []
        if reason in _QUOTAS:
            subject, description = _QUOTAS[reason]
            failure = {"subject": subject.format(project=self.project), "description": description}
            details.append({"@type": _QUOTA_FAILURE, "violations": [failure]})
        if reason == "INVALID_TOKEN":
            violation = {"field": "message.token", "description": "Invalid registration token"}
            details.append({"@type": _BAD_REQUEST, "fieldViolations": [violation]})
        return _reply(http, status, _MESSAGES.get(reason, f"{reason} by the simulator."), details, headers, reason)

    def _invalid(self, wrong: list[tuple[str, str]]) -> Reply:
        listed = [{"field": field, "description": description} for field, description in wrong]
        details: list[dict[str, Any]] = [
            {"@type": _FCM_ERROR, "errorCode": "INVALID_ARGUMENT"},
            {"@type": _BAD_REQUEST, "fieldViolations": listed},
        ]
        headers = {"content-type": "application/json; charset=UTF-8"}
        return _reply(400, "INVALID_ARGUMENT", wrong[0][1], details, headers, "INVALID_ARGUMENT")

    def _device(self, request: Request, message: dict[str, Any], validate_only: bool) -> Reply:
        target = message.get("token", message.get("fid", ""))
        if "topic" in message or "condition" in message:
            return self._accepted("fake_message_id" if validate_only else "1", None)
        found = _TOKEN.fullmatch(target)
        if found is None and not _FID.fullmatch(target):
            return self.error("INVALID_TOKEN", request)
        behaviour = self.devices.get(target)
        if behaviour is None and found is not None:
            behaviour = next((word for word, mark in _MARKS.items() if found.group(2).startswith(f"{mark}-")), "good")
        if behaviour in _ANSWERS:
            return self.error(_ANSWERS[behaviour], request)
        if behaviour == "throttled" and target not in self._throttled:
            self._throttled.add(target)
            refusal = self.error("DEVICE_QUOTA", request)
            return Reply(refusal.status, {**refusal.headers, "retry-after": "1"}, refusal.body, reason=refusal.reason)
        if validate_only:
            return self._accepted("fake_message_id", None)
        digest = _digest(target)
        push = Push("", digest, _notification(message))
        return self._accepted(
            f"0:{int(self.clock() * 1e6)}%{digest[:16]}", push, self.slow if behaviour == "slow" else 0.0
        )

    def _accepted(self, id: str, push: Push | None, after: float = 0.0) -> Reply:
        body = orjson.dumps({"name": f"projects/{self.project}/messages/{id}"})
        return Reply(200, {"content-type": "application/json; charset=UTF-8"}, body, push, after=after)

    def lean_push(self, block: bytes, body: bytes) -> Push | None:
        address = _LEAN_ADDRESS.search(body)
        if address is None:
            return None
        notification = _LEAN_NOTIFICATION.search(body)
        return Push("", _digest(address.group(1).decode()), notification.group(1).decode() if notification else "")

    def _load_key(self) -> rsa.RSAPrivateKey:
        """The key in the simulator's folder, made if it is not there: a client that trusts this simulator can go on
        after a restart."""
        file = self.folder / "fcm-service-account.key"
        if file.exists():
            key = serialization.load_pem_private_key(file.read_bytes(), None)
            if isinstance(key, rsa.RSAPrivateKey):
                return key
        key = rsa.generate_private_key(65537, 2048)
        file.touch(mode=0o600)
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return key


def _reply(
    http: int, status: str, message: str, details: list[dict[str, Any]], headers: dict[str, str], reason: str
) -> Reply:
    error: dict[str, Any] = {"code": http, "message": message, "status": status}
    if details:
        error["details"] = details
    return Reply(http, headers, orjson.dumps({"error": error}), reason=reason)


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _digest(target: str) -> str:
    return blake2b(target.encode(), digest_size=16).hexdigest()


def _notification(message: dict[str, Any]) -> str:
    try:
        about = orjson.loads(message.get("data", {}).get("fanout", ""))
        return str(UUID(about["id"]))
    except (KeyError, TypeError, ValueError):
        return ""
