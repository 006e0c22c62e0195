"""Windows Notification Service (WNS): toasts, tiles, badges and raw notifications for Windows apps, over HTTP/1.1.

`settings` holds the settings of a binding, `payload` (pure) makes a notification into Windows' form, `outcome` (pure)
is the table of WNS's answers, `auth` says how access tokens are fetched, `diagnosis` (pure) the findings of `fanout
doctor`, `transport` does the I/O, and `simulator` stands in for WNS and its token endpoints. Nothing imports this
package by name: the entry point `wns` names `plugin`.
"""

from fanout.plugin import Question, TransportPlugin
from fanout_wns.settings import WnsSettings

__all__ = ["WnsSettings", "plugin"]

plugin = TransportPlugin(
    name="wns",
    settings=WnsSettings,
    factory="fanout_wns.transport:WnsTransport",
    extra="wns",
    simulator="fanout_wns.simulator:WnsSimulator",
    questions=(
        Question(setting="tenant_id", ask="Directory (tenant) ID of the app registration in Entra"),
        Question(setting="client_id", ask="Application (client) ID of the app registration"),
        Question(setting="client_secret", ask="Its client secret (the value, not the id)"),
    ),
)
