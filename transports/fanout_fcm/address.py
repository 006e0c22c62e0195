"""The token or id that the Firebase SDK hands an app, as an address: a registration token or an installation id.
Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from fanout.plugin import Address, AddressInvalid

__all__ = ["APPLE", "FID", "RELAYED", "TOKEN", "WEB", "Relays", "parse_address"]

TOKEN = "token"
FID = "fid"
"""The kinds of endpoint, named as the message's fields are. Google prefers `fid` since 2026 (discovery revision
20261023)."""

APPLE = "apple"
WEB = "web"
"""The groups of the devices that Google reaches through Apple or a browser vendor, each with a credential of its own
that the project's owner gave to Firebase. When that is wrong, its group is parked, and the others go on."""

RELAYED = "relayed"
"""As these, for devices whose address does not name a platform, and that were found to be reached through another
sender."""

_FID_FORM = re.compile(r"[c-f][A-Za-z0-9_-]{21}")
"""22 characters of base64url that begin with the four bits 0111 (Firebase installations: "FID format")."""
_TOKEN_FORM = re.compile(r"[A-Za-z0-9_:.=%+/~|-]{23,4096}")
_GROUPS = {"": "", "android": "", "ios": APPLE, "apple": APPLE, "web": WEB}


class Relays:
    """Tells a device that is reached through another provider from one whose own credential Google means: two devices
    say so, or none."""

    __slots__ = ("_said",)

    def __init__(self) -> None:
        self._said: set[int] = set()

    def agree(self, endpoint: int) -> bool:
        """This device without a platform was refused for a third party's sake; whether another was as well."""
        if len(self._said) < 2:
            self._said.add(endpoint)
        return len(self._said) > 1


def parse_address(raw: str | Mapping[str, Any]) -> Address:
    """The address of a token or installation id, told apart by form, or of a mapping that says which it is.

    The mapping (or its JSON text) is `{"token": …}` or `{"fid": …}`, with an optional `"platform"` (`android`, `ios`,
    `web`). Raises `AddressInvalid`, without the address in its text.
    """
    if isinstance(raw, str):
        text = raw.strip()
        if not text.startswith("{"):
            return Address(text, kind=_kind(text))
        try:
            raw = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise AddressInvalid(_FORMS) from None
    if isinstance(raw, Mapping) and set(raw) <= {TOKEN, FID, "platform"} and len({TOKEN, FID} & set(raw)) == 1:
        kind = TOKEN if TOKEN in raw else FID
        value, platform = raw[kind], raw.get("platform", "")
        if isinstance(value, str) and isinstance(platform, str):
            group = _GROUPS.get(platform.lower())
            if group is None:
                raise AddressInvalid("The platform of an FCM address is android, ios or web; leave it out if unknown.")
            form = _FID_FORM if kind == FID else _TOKEN_FORM
            if form.fullmatch(value.strip()) or (kind == TOKEN and _FID_FORM.fullmatch(value.strip())):
                return Address(value.strip(), kind=kind, group=group)
            raise AddressInvalid(_SENTENCE)
    raise AddressInvalid(_FORMS)


_FORMS = 'An FCM address is a text, or {"token": TEXT} or {"fid": TEXT}, with "platform" beside it if you like.'
_SENTENCE = "This is no FCM registration token or installation id: hand on what getToken() or getId() of the Firebase SDK gives, unchanged."


def _kind(text: str) -> str:
    if _FID_FORM.fullmatch(text):
        return FID
    if _TOKEN_FORM.fullmatch(text):
        return TOKEN
    raise AddressInvalid(_SENTENCE)
