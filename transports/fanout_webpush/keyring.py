"""The VAPID keys of one binding: all of them where it sends, and as many as can be known where it only submits."""

from __future__ import annotations

from fanout.plugin import AddressInvalid, ConfigurationError, Secret
from fanout_webpush.address import is_public_key
from fanout_webpush.settings import WebPushSettings
from fanout_webpush.vapid import VapidKey, key_id

__all__ = ["KnownKeys"]

_NAMELESS = (
    "The subscription does not name its applicationServerKey, and this program knows none: set vapid_public_key, or let it read "
    "vapid_private_key, or register the subscription with its applicationServerKey."
)
_FOREIGN = (
    "The subscription was made with an applicationServerKey that is not configured: let the page unsubscribe and "
    "subscribe again with the present one, or configure that key's private half as vapid_previous_key."
)


class KnownKeys:
    """Which key a subscription was made with. A private key that cannot be read here is no hindrance: the sending
    process will judge."""

    def __init__(self, settings: WebPushSettings) -> None:
        self._settings = settings
        self._publics: list[str] | None = None

    def load(self) -> list[VapidKey]:
        """The present key, and the previous one if there is one. Raises `ConfigurationError`."""
        settings = self._settings
        if settings.vapid_private_key is None:
            raise ConfigurationError(
                "vapid_private_key is missing, and a program that sends needs it: set vapid_private_key_file to the file that "
                "`fanout keys vapid --out FILE` made."
            )
        keys = [VapidKey.load(settings.vapid_private_key)]
        if settings.vapid_public_key not in ("", keys[0].public):
            raise ConfigurationError(
                "vapid_public_key and vapid_private_key are no pair: take vapid_public_key out, or write that of the private key."
            )
        if settings.vapid_previous_key is not None:
            keys.append(VapidKey.load(settings.vapid_previous_key, "vapid_previous_key"))
        self._publics = [key.public for key in keys]
        return keys

    def kind(self, named: str | None) -> str:
        """The id of the key of a subscription that names this applicationServerKey, or none. Raises
        `AddressInvalid`."""
        publics = self._publics
        if publics is None:
            publics, complete = self._look()
            if complete:
                self._publics = publics
        else:
            complete = True
        if named is None:
            if not publics or publics[0] == "":
                raise AddressInvalid(_NAMELESS)
            return key_id(publics[0])
        if named in publics or (not complete and is_public_key(named)):
            return key_id(named)
        raise AddressInvalid(_FOREIGN)

    def _look(self) -> tuple[list[str], bool]:
        """The public keys that can be known here, the present one first ("" where it is unknown); whether that is all
        of them."""
        settings = self._settings
        present = settings.vapid_public_key or _public(settings.vapid_private_key, "vapid_private_key")
        found, complete = [present], bool(present)
        if settings.vapid_previous_key is not None:
            previous = _public(settings.vapid_previous_key, "vapid_previous_key")
            found.append(previous)
            complete = complete and bool(previous)
        return found, complete


def _public(secret: Secret | None, name: str) -> str:
    """The public half; "" where the private one cannot be read or is none."""
    if secret is None:
        return ""
    try:
        return VapidKey.load(secret, name).public
    except ConfigurationError:
        return ""
