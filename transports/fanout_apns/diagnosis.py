"""The findings of `fanout doctor` about an APNs binding. Pure: an outcome of the probe in, one sentence out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fanout.plugin import (
    CERTIFICATE_ALERTS,
    Accepted,
    Diagnosis,
    Gone,
    Misconfigured,
    Notification,
    Outcome,
    Throttled,
    Unavailable,
)
from fanout_apns.settings import ApnsSettings

if TYPE_CHECKING:
    from fanout_apns.certificate import Validity

__all__ = ["PROBE", "diagnose", "judge"]

PROBE = Notification(ttl=0, lane="bulk")
"""A background push, now or never, for the device token of zeros: no device has it, so none can be disturbed."""

_REMEDIES = {
    "InvalidProviderToken": "Apple does not accept the token: team_id, key_id and key must belong together, and the key must not be revoked.",
    "MissingProviderToken": "Apple saw neither a token nor a certificate: set key_file with key_id and team_id, or cert_file.",
    "ExpiredProviderToken": "Apple calls a new token expired: set this machine's clock right (NTP).",
    "BadEnvironmentKeyIdInToken": "The key is for Apple's other environment: use a key made for environment = {environment}, or change that.",
    "BadEnvironmentKeyInToken": "The key is for Apple's other environment: use a key made for environment = {environment}, or change that.",
    "BadCertificate": "Apple does not accept the certificate: download a current one for this app and set cert_file to it.",
    "BadCertificateEnvironment": "The certificate is for Apple's other environment: use one made for environment = {environment}, or change that.",
    "Forbidden": "Apple refuses this credential: check that the key or certificate is active on Apple's developer site.",
    "TopicDisallowed": "This credential may not push to topic = {topic}: set topic to the app's bundle id, or use that app's key.",
    "BadTopic": "topic = {topic} is no app of this team: set it to the app's bundle id.",
    "TooManyProviderTokenUpdates": "Apple has seen too many tokens of this key: let no other program sign with it, and check again in 20 minutes.",
    "MissingTopic": "Apple needs a topic with this credential: set topic to the app's bundle id.",
}


def diagnose(outcome: Outcome, settings: ApnsSettings, trouble: str = "") -> Diagnosis:
    """The finding about the binding in the answer to the probe. `trouble` is the connection's last problem, in
    words."""
    match outcome:
        case Gone():
            return Diagnosis(
                detail=f"Apple accepts the credential for {settings.topic or 'the certificate'} ({settings.url})."
            )
        case Accepted():
            return Diagnosis(detail=f"{settings.url} accepts everything, so it is no real gateway.")
        case Misconfigured(reason) if reason in CERTIFICATE_ALERTS:
            return Diagnosis(_of_alert(reason.removeprefix("alert "), settings), trouble or reason)
        case Misconfigured(reason):
            word = reason.partition(" ")[0]
            remedy = _REMEDIES.get(word, "Apple refuses this credential ({word}): check it on Apple's developer site.")
            return Diagnosis(
                remedy.format(environment=settings.environment, topic=settings.topic or "(none)", word=word), reason
            )
        case Throttled():
            return Diagnosis("Apple asks to slow down: check again in a minute.", outcome.reason)
        case Unavailable(_, _, "TooManyProviderTokenUpdates" as reason):
            return Diagnosis(_REMEDIES[reason], reason)
        case Unavailable():
            return Diagnosis(
                f"{settings.url} gave no answer ({outcome.reason}): check the network, the firewall "
                "(TCP 443, or set gateway to Apple's host with port 2197) and ca_file.",
                trouble,
            )
        case _:
            return Diagnosis(
                f"{settings.url} answered the probe with {outcome.reason}: check that gateway leads to APNs.",
                type(outcome).__name__,
            )


def judge(found: Diagnosis, validity: Validity, now: float) -> Diagnosis:
    """The finding, with the end of the certificate as far as it is known. `now` in UNIX seconds."""
    problem = validity.problem(now)
    if problem and found.ok:
        return replace(
            found,
            warning=f"By this machine's clock: {problem} Apple accepts it, so the clock is wrong: set it right (NTP).",
        )
    if problem:
        return replace(found, problem=problem, detail=found.detail or found.problem)
    return replace(found, warning=validity.warning(now))


_ALERTS = {
    "certificate_expired": "it has ended: make a new one",
    "certificate_revoked": "it has been revoked: make a new one",
    "certificate_required": "it has seen none: set cert_file, or check that gateway leads to APNs",
    "no_certificate": "it has seen none: set cert_file, or check that gateway leads to APNs",
    "unknown_ca": "it is of an authority that Apple does not know: use the certificate that Apple's developer site gave out",
    "decrypt_error": "its key is another one: use the key that it was requested with",
}


def _of_alert(name: str, settings: ApnsSettings) -> str:
    why = _ALERTS.get(name, f"alert {name}: check that it is a push certificate, for this environment, and active")
    if settings.cert_file is None and name not in ("certificate_required", "no_certificate"):
        why = f"alert {name}, though none is configured: check that gateway leads to APNs, and check any proxy between"
    return f"{settings.url} refuses the certificate of this binding: {why}."
