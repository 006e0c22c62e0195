"""Frozen settings from TOML, keyword arguments and the environment. Import it from the levels above core.

`document` reads and shapes the source, `tables` checks tables against dataclasses, `binding` makes a transport's settings,
`settings` holds the result and `load` joins them; `renew` reads credentials anew. Nothing here knows a transport or a storage backend: what a transport's
settings look like is asked of a function that the caller hands in.
"""

from fanout.config.addresses import address_settings
from fanout.config.binding import BindingTable, check_environment, environment_name
from fanout.config.document import Document, find_document
from fanout.config.load import load, load_binding
from fanout.config.renew import fingerprint, renewed
from fanout.config.service import ApiKeySettings, IssuerSettings, Limits, ServiceSettings, UserKeySettings
from fanout.config.service_table import service_settings
from fanout.config.settings import AddressSettings, BindingSettings, Settings, Telemetry

__all__ = [
    "AddressSettings",
    "ApiKeySettings",
    "BindingSettings",
    "BindingTable",
    "Document",
    "IssuerSettings",
    "Limits",
    "ServiceSettings",
    "Settings",
    "Telemetry",
    "UserKeySettings",
    "address_settings",
    "check_environment",
    "environment_name",
    "find_document",
    "fingerprint",
    "load",
    "load_binding",
    "renewed",
    "service_settings",
]
