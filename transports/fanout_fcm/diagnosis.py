"""The findings of `fanout doctor` about an FCM binding. Pure: the probe's result in, one sentence out."""

from __future__ import annotations

from fanout.plugin import Diagnosis, Gone, Misconfigured, Outcome, Rejected, Throttled, TokenError, Unavailable
from fanout_fcm.settings import FcmSettings

__all__ = ["PROBE", "of_probe", "of_token"]

PROBE = b'{"message":{"topic":"fanout-doctor","data":{"probe":"1"}},"validateOnly":true}'
"""A message that Google checks and does not deliver."""

_CONSOLE = "Firebase console > Project settings"
_REMEDIES = {
    "UNAUTHENTICATED": "Google gives out a token and does not accept it: check that gateway and token_url belong together.",
    "PERMISSION_DENIED": "The account may not send for project {project}: enable the Firebase Cloud Messaging API (V1) under "
    f"{_CONSOLE} > Cloud Messaging, and use a key made in this project.",
    "NOT_FOUND": "Google knows no project {project}: write the id shown under "
    + f"{_CONSOLE} > General into project_id.",
    "SENDER_ID_MISMATCH": "The account belongs to another project than {project}: use a key made in this project.",
    "THIRD_PARTY_AUTH_ERROR": "Firebase reaches Apple or the browsers with a wrong credential: correct the APNs key under "
    f"{_CONSOLE} > Cloud Messaging.",
}


def of_token(error: TokenError, settings: FcmSettings) -> Diagnosis:
    """The sentence about an access token that was not to be had."""
    if settings.auth == "application_default":
        return Diagnosis(f"No access token with auth = application_default: {error}", error.kind)
    if error.kind == "misconfigured":
        return Diagnosis(
            "Google does not accept the service account's key: set this machine's clock right (NTP), or make a new key under "
            f"{_CONSOLE} > Service accounts and set service_account_file to it.",
            str(error),
        )
    return Diagnosis("No access token could be fetched: check the network, the firewall and token_url.", str(error))


def of_probe(outcome: Outcome, named: bool, settings: FcmSettings, trouble: str = "") -> Diagnosis:
    """The finding about the binding in the answer to the probe. `named`: a 200 named a message, as FCM does. `trouble`
    is in words."""
    match outcome:
        case Misconfigured(reason) | Gone(reason):
            remedy = _REMEDIES.get(reason, "Google refuses the probe ({reason}): check project_id and gateway.")
            return Diagnosis(remedy.format(project=settings.project, reason=reason), reason)
        case Throttled(_, _, reason):
            return Diagnosis("Google asks to slow down: check again in a minute.", reason)
        case Unavailable(_, _, reason):
            return Diagnosis(
                f"{settings.gateway} gave no verdict ({reason}): check the network, the firewall (TCP 443) and ca_file.",
                trouble,
            )
        case Rejected(reason):
            return Diagnosis(f"{settings.gateway} rejects the probe ({reason}): check that gateway leads to FCM.")
        case _ if not named:
            return Diagnosis(f"{settings.gateway} accepts everything, so it is no FCM: check gateway.")
        case _:
            return Diagnosis(detail=f"Google takes messages for project {settings.project} ({settings.gateway}).")
