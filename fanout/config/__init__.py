"""Frozen settings from TOML, keyword arguments and the environment. Import it from the levels above core.

`document` reads and shapes the source, `tables` checks tables against dataclasses, `binding` makes a transport's
settings, `settings` holds the result and `load` joins them; `watch` reads a source that has changed anew. Nothing here
knows a transport or a storage backend: the caller hands in a function that names the settings type of a transport.
"""

from fanout.config.addresses import address_settings
from fanout.config.binding import BindingTable, check_environment, check_setting, environment_name
from fanout.config.document import Document, find_document, storage_location
from fanout.config.environment import Asked
from fanout.config.faults import Faults
from fanout.config.limits import Limits
from fanout.config.load import load, load_binding
from fanout.config.places import line_of, places
from fanout.config.renew import prove
from fanout.config.service import (
    TENANT,
    ApiKeySettings,
    CertificateSettings,
    IssuerSettings,
    ServiceSettings,
    UserKeySettings,
)
from fanout.config.service_table import service_settings
from fanout.config.settings import AddressSettings, BindingPart, BindingSettings, Settings, Telemetry
from fanout.config.thread import in_thread
from fanout.config.watch import EVERY, Change, ConfigState, Owner, Watcher, binding_parts

__all__ = [
    "EVERY",
    "TENANT",
    "AddressSettings",
    "ApiKeySettings",
    "Asked",
    "BindingPart",
    "BindingSettings",
    "BindingTable",
    "CertificateSettings",
    "Change",
    "ConfigState",
    "Document",
    "Faults",
    "IssuerSettings",
    "Limits",
    "Owner",
    "ServiceSettings",
    "Settings",
    "Telemetry",
    "UserKeySettings",
    "Watcher",
    "address_settings",
    "binding_parts",
    "check_environment",
    "check_setting",
    "environment_name",
    "find_document",
    "in_thread",
    "line_of",
    "load",
    "load_binding",
    "places",
    "prove",
    "service_settings",
    "storage_location",
]
