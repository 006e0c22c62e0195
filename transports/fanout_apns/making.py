"""The choice between our own client and aioapns."""

from __future__ import annotations

from fanout.plugin import Context
from fanout_apns.settings import ApnsSettings
from fanout_apns.transport import ApnsTransport

__all__ = ["make"]


def make(settings: ApnsSettings, context: Context) -> ApnsTransport:
    """The transport with the client that the settings choose."""
    if settings.client == "aioapns":
        from fanout_apns.aioapns_client import AioapnsTransport

        return AioapnsTransport(settings, context)
    return ApnsTransport(settings, context)
