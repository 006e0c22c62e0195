"""Credentials that change while the program runs: the settings with the present content of their files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from fanout.config.binding import read_secret
from fanout.config.marks import secrets_of
from fanout.config.settings import Settings
from fanout.core.secret import Secret
from fanout.errors import ConfigurationError, UsageError

__all__ = ["prove", "renewed"]


def prove(settings: Settings) -> None:
    """Read every secret of every binding, and check its settings with it.

    For a program that is about to send, before it opens anything.

    Args:
        settings: The settings.

    Raises:
        ConfigurationError: A secret cannot be read or used; the text names the place.
    """
    for app, binding, chosen in settings.bindings():
        place = f"apps.{app}.transports.{binding}"
        secrets = [secret for secret in secrets_of(chosen.settings) if not secret.at_hand]
        try:
            for secret in secrets:
                secret.reveal()
            if secrets:
                dataclasses.replace(chosen.settings)  # looks at itself again, now with the texts
        except (UsageError, ConfigurationError) as error:
            text = str(error)
            raise ConfigurationError(text if text.startswith(place) else f"{place}: {text}") from None


def renewed(settings: Any) -> Any:
    """The same settings with their secrets read from their files anew. Raises `ConfigurationError`, and any error of
    the settings."""
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        return settings
    secrets = {
        field.name: read_secret(Path(value.path), f"The file {value.path}")
        for field in dataclasses.fields(settings)
        if isinstance(value := getattr(settings, field.name), Secret) and value.path
    }
    return dataclasses.replace(settings, **secrets) if secrets else settings
