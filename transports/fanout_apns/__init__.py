"""Apple Push Notification service: iOS, iPadOS, macOS, tvOS, visionOS and watchOS devices, over HTTP/2.

`settings` holds the settings of a binding, `payload` (pure) makes a notification into Apple's form, `outcome` (pure) is
the table of Apple's answers, `auth` keeps the provider token, `transport` does the I/O, `aioapns_client` is the
conservative alternative to it, and `simulator` stands in for Apple. Nothing imports this package by name: the entry
point `apns` names `plugin`.
"""

from fanout.plugin import Question, TransportPlugin
from fanout_apns.settings import ApnsSettings

__all__ = ["ApnsSettings", "plugin"]

plugin = TransportPlugin(
    name="apns",
    settings=ApnsSettings,
    factory="fanout_apns.making:make",
    extra="apns",
    simulator="fanout_apns.simulator:ApnsSimulator",
    questions=(
        Question(
            setting="key_file",
            ask="Path of the .p8 key from Apple's developer site (Certificates, Identifiers & Profiles, Keys)",
        ),
        Question(setting="key_id", ask="Key ID of that key, 10 letters and digits"),
        Question(setting="team_id", ask="Team ID, 10 letters and digits (Membership details)"),
        Question(setting="topic", ask="Bundle id of the app, such as com.example.app"),
        Question(setting="environment", ask="production, or sandbox for builds from Xcode", default="production"),
    ),
)
