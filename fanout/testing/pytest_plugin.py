"""The pytest plugin of the distribution (entry point `pytest11`): the fixture `pushes`. Only pytest imports it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fanout.testing.pushes import Pushes


@pytest.fixture
def pushes() -> Iterator[Pushes]:
    """The pushes that the application under test has sent, oldest first; nothing real is sent meanwhile. See
    `fanout.testing.Pushes`."""
    from fanout.testing.pushes import Pushes

    with Pushes() as collected:
        yield collected
