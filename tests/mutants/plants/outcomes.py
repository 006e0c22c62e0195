"""Faults in the tables of what gateways' answers mean, and in what they are told."""

from __future__ import annotations

from tests.mutants.plant import Plant

__all__ = ["PLANTS"]

_APNS, _FCM = "transports/fanout_apns/outcome.py", "transports/fanout_fcm/outcome.py"
_WEBPUSH, _WNS = "transports/fanout_webpush/outcome.py", "transports/fanout_wns/outcome.py"

PLANTS = [
    Plant(
        "APNs: a wrong topic kills the device",
        _APNS,
        '    (400, "BadTopic"): (_topic, Effect.NONE),',
        '    (400, "BadTopic"): (_gone, Effect.NONE),',
        "tests/apns/test_outcome.py tests/apns/test_answers.py",
    ),
    Plant(
        "APNs: a bad token is a certain death",
        _APNS,
        '    (400, "BadDeviceToken"): (_gone_or_ours, Effect.NONE),',
        '    (400, "BadDeviceToken"): (_gone, Effect.NONE),',
        "tests/apns/test_outcome.py",
    ),
    Plant(
        "APNs: the time of death is not handed on",
        _APNS,
        "    return Gone(answer.word, answer.since)",
        "    return Gone(answer.word)",
        "tests/apns/test_outcome.py",
    ),
    Plant(
        "APNs: an unknown 403 is the message's fault",
        _APNS,
        "    403: (_credential, Effect.NONE),\n    407:",
        "    407:",
        "tests/apns/test_outcome.py",
    ),
    Plant(
        "APNs: an expired provider token is not renewed",
        _APNS,
        '    (403, "ExpiredProviderToken"): (_not_taken, Effect.RENEW),',
        '    (403, "ExpiredProviderToken"): (_not_taken, Effect.NONE),',
        "tests/apns/test_outcome.py tests/apns/test_answers.py tests/apns/test_auth.py",
    ),
    Plant(
        "APNs: a notification's own topic parks everybody",
        _APNS,
        "    if make is _topic and not own_topic:\n        make = _rejected\n",
        "",
        "tests/apns/test_outcome.py",
    ),
    Plant(
        "FCM: a bad field of the message kills the device",
        _FCM,
        "return _gone_or_ours(answer) if names_device else _rejected(answer)",
        "return _gone_or_ours(answer)",
        "tests/fcm/test_outcome.py",
    ),
    Plant(
        "FCM: a device's quota stops the project",
        _FCM,
        'if "device" in answer.quota or "registration token" in answer.quota:',
        'if "no such word" in answer.quota:',
        "tests/fcm/test_outcome.py",
    ),
    Plant(
        "FCM: a missing project kills devices",
        _FCM,
        '    "NOT_FOUND": _project,',
        '    "NOT_FOUND": _gone,',
        "tests/fcm/test_outcome.py",
    ),
    Plant(
        "FCM: an unspecified error is tried for ever",
        _FCM,
        "return _failed(answer) if answer.attempt < _UNSPECIFIED_ATTEMPTS else _rejected(answer)",
        "return _failed(answer)",
        "tests/fcm/test_outcome.py",
    ),
    Plant(
        "Web Push: a blocked domain kills the endpoints",
        _WEBPUSH,
        '    (_E, 410, "Domain Blocked"): (_stop, Effect.NONE),',
        '    (_E, 410, "Domain Blocked"): (_gone, Effect.NONE),',
        "tests/webpush/test_outcome.py",
    ),
    Plant(
        "Web Push: a refusal that passes by itself is believed at once",
        _WEBPUSH,
        "if answer.attempt < 3 else Rejected(answer.word)",
        "if answer.attempt < 1 else Rejected(answer.word)",
        "tests/webpush/test_outcome.py",
    ),
    Plant(
        "Web Push: a send whose pool was left while it was encrypted is not sent",
        "transports/fanout_webpush/transport.py",
        'elif host.pool is pool or failed.sent != "no":',
        "else:",
        "tests/webpush/test_transport.py",
    ),
    Plant(
        "Web Push: a few throttled endpoints are a crowd",
        _WEBPUSH,
        "return self._throttled >= self._least and self._throttled > accepted - self._accepted",
        "return self._throttled > accepted - self._accepted",
        "tests/webpush/test_outcome.py",
    ),
    Plant(
        "WNS: a dropped notification is called delivered",
        _WNS,
        '    (200, "dropped"): _rejected,',
        '    (200, "dropped"): _accepted,',
        "tests/wns/test_outcome.py",
    ),
    Plant(
        "WNS: a blocked domain kills the channels",
        _WNS,
        '    (410, "domain blocked"): _stopped,',
        '    (410, "domain blocked"): _gone,',
        "tests/wns/test_outcome.py",
    ),
]
