"""Firebase Cloud Messaging, HTTP v1: Android, iOS and web apps of one Firebase project, over HTTP/2.

`settings` holds the settings of a binding, and `credential` (pure) reads Google's file. `address` and `payload` (pure)
make devices and notifications into Google's form, with `merge` for the parts of a notification in Google's own terms.
`outcome` (pure) is the table of Google's answers, `shaper` (pure) keeps to the project's rate, `auth` fetches access
tokens, `transport` does the I/O, and `simulator` with `token_endpoint` stands in for Google. Nothing imports this
package by name: the entry point `fcm` names `plugin`.
"""

from fanout.plugin import Question, TransportPlugin
from fanout_fcm.settings import FcmSettings

__all__ = ["FcmSettings", "plugin"]

plugin = TransportPlugin(
    name="fcm",
    settings=FcmSettings,
    factory="fanout_fcm.transport:make",
    extra="fcm",
    simulator="fanout_fcm.simulator:FcmSimulator",
    questions=(
        Question(
            setting="service_account_file",
            ask="Path of the service account's JSON file (Firebase console, Project settings, Service accounts)",
        ),
    ),
)
