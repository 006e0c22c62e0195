"""The `[addresses]` table read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fanout.config.binding import find_secret
from fanout.config.settings import AddressSettings
from fanout.config.tables import as_table, refuse_unknown

__all__ = ["address_settings"]

_VARIABLE = "FANOUT_ADDRESSES_KEY"


def address_settings(value: object, *, folder: Path, environ: Mapping[str, str]) -> AddressSettings:
    """The settings in an `[addresses]` table. The keys may come from the environment's FANOUT_ADDRESSES_KEY.

    Args:
        value: The table, or `AddressSettings`, which are returned as they are.
        folder: The folder at which a relative path starts.
        environ: The environment variables.

    Returns:
        The settings.

    Raises:
        ConfigurationError: A setting is wrong. The text has no secret.
    """
    if isinstance(value, AddressSettings):
        return value
    given = as_table("addresses", value)
    refuse_unknown("addresses", given, ("key", "key_file"))
    return AddressSettings(key=find_secret("addresses", "key", given, folder, _VARIABLE, environ))
