"""The VAPID pair as `fanout keys vapid` shows it."""

from __future__ import annotations

from fanout.plugin import KeyPair
from fanout_webpush.vapid import make_vapid_keys

__all__ = ["new_pair"]


def new_pair() -> KeyPair:
    """A new pair, with the settings that take it."""
    pair = make_vapid_keys()
    return KeyPair(
        private=pair.private_pem,
        setting="vapid_private_key",
        public=pair.application_server_key,
        public_name="applicationServerKey",
        more={"vapid_subject": "mailto:you@example.com"},
    )
