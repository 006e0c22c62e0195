"""Apple Push Notification service: iOS, iPadOS, macOS, tvOS, visionOS and watchOS devices, over HTTP/2.

`settings` says what a binding is configured with, `payload` (pure) makes a notification into Apple's form, `outcome` (pure) is
the table of Apple's answers, `auth` keeps the provider token, `transport` does the I/O, `aioapns_client` is the conservative
alternative to it, and `simulator` stands in for Apple. Nothing imports this package by name: the entry point `apns` names `plugin`.
"""

from fanout.plugin import TransportPlugin
from fanout_apns.settings import ApnsSettings

__all__ = ["ApnsSettings", "plugin"]

plugin = TransportPlugin(
    name="apns",
    settings=ApnsSettings,
    factory="fanout_apns.transport:make",
    extra="apns",
    simulator="fanout_apns.simulator:ApnsSimulator",
)
