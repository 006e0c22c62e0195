"""Web Push (RFC 8030, 8188, 8291, 8292): browsers on every platform, over HTTP/2 or HTTP/1.1, one group of connections
per host.

`settings` holds the settings of a binding, `address` (pure) reads a browser's PushSubscription, `payload` (pure) makes
a notification into the text that the service worker receives, `encryption` and `vapid` do the cryptography, `vendors`
holds the differences between the four vendors and `outcome` (pure) is the table of their answers. `hosts` keeps the
connections, `slices` shares the event loop, `transport` is one send. `simulator` stands in for the push services:
`services` holds their answers, `tokens_check` their check of tokens, `browsers` the subscribed browsers. `browser` is a
page that subscribes for real, `keys` makes a VAPID pair. Nothing imports this package by name: the entry point
`webpush` names `plugin`.
"""

from fanout.plugin import Question, TransportPlugin
from fanout_webpush.settings import WebPushSettings

__all__ = ["WebPushSettings", "plugin"]

plugin = TransportPlugin(
    name="webpush",
    settings=WebPushSettings,
    factory="fanout_webpush.transport:WebPushTransport",
    extra="webpush",
    simulator="fanout_webpush.simulator:WebPushSimulator",
    keys={"vapid": "fanout_webpush.keys:new_pair"},
    browser="fanout_webpush.browser:serve",
    questions=(
        Question(
            setting="vapid_subject",
            ask="How push services reach you if something is wrong: mailto:NAME@DOMAIN or https://DOMAIN/CONTACT",
            default="mailto:you@example.com",
        ),
    ),
)
