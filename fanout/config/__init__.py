"""Frozen settings from TOML, keyword arguments and the environment. Import it from the levels above core.

`document` reads and shapes the source, `tables` checks tables against dataclasses, `binding` makes a transport's settings,
`settings` holds the result and `load` joins them. Nothing here knows a transport or a storage backend: what a transport's
settings look like is asked of a function that the caller hands in.
"""

from fanout.config.binding import BindingTable, check_environment, environment_name
from fanout.config.document import Document, find_document
from fanout.config.load import load, load_binding
from fanout.config.settings import BindingSettings, Settings

__all__ = [
    "BindingSettings",
    "BindingTable",
    "Document",
    "Settings",
    "check_environment",
    "environment_name",
    "find_document",
    "load",
    "load_binding",
]
