"""What `fanout doctor` says of an APNs binding. Pure: an outcome of the probe in, one sentence out."""

from __future__ import annotations

from fanout.plugin import Accepted, Diagnosis, Gone, Misconfigured, Notification, Outcome, Throttled, Unavailable
from fanout_apns.settings import ApnsSettings

__all__ = ["PROBE", "diagnose"]

PROBE = Notification(ttl=0, lane="bulk")
"""A background push, now or never, for the device token of zeros: nobody has it, so nobody can be disturbed."""

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
    "MissingTopic": "Apple needs a topic with this credential: set topic to the app's bundle id.",
}


def diagnose(outcome: Outcome, settings: ApnsSettings, trouble: str = "") -> Diagnosis:
    """What the answer to the probe says of the binding. `trouble` is the connection's last problem, in words."""
    match outcome:
        case Gone():
            return Diagnosis(
                detail=f"Apple accepts the credential for {settings.topic or 'the certificate'} ({settings.url})."
            )
        case Accepted():
            return Diagnosis(detail=f"{settings.url} accepts everything, so it is no real gateway.")
        case Misconfigured(reason):
            word = reason.partition(" ")[0]
            remedy = _REMEDIES.get(word, "Apple refuses this credential ({word}): check it on Apple's developer site.")
            return Diagnosis(
                remedy.format(environment=settings.environment, topic=settings.topic or "(none)", word=word), reason
            )
        case Throttled():
            return Diagnosis("Apple asks to slow down: check again in a minute.", outcome.reason)
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
