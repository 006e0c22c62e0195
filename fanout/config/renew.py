"""Credentials that change while the program runs: the settings with what stands in their files now."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from fanout.config.binding import read_secret
from fanout.core.secret import Secret

__all__ = ["renewed"]


def renewed(settings: Any) -> Any:
    """The same settings with their secrets read from their files anew. Raises `ConfigurationError`, and what the settings raise."""
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        return settings
    secrets = {
        field.name: read_secret(Path(value.path), f"The file {value.path}")
        for field in dataclasses.fields(settings)
        if isinstance(value := getattr(settings, field.name), Secret) and value.path
    }
    return dataclasses.replace(settings, **secrets) if secrets else settings
