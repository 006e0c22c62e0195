"""An answer of a service that is newer or older than the client."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import fanout.client
from fanout.client import Counts, ServiceError
from fanout.client.wire import answered

WHOLE: dict[str, Any] = {field.name: 1 for field in fields(Counts)}


def test_a_field_that_a_newer_service_has_is_left_out() -> None:
    assert answered(Counts, {**WHOLE, "of_a_later_version": 1}) == Counts(**WHOLE)


def test_a_field_that_an_older_service_lacks_is_named() -> None:
    missing = next(iter(WHOLE))
    answer = {name: value for name, value in WHOLE.items() if name != missing}
    with pytest.raises(ServiceError, match=rf"no Counts .*'{missing}'.*update the service"):
        answered(Counts, answer)


def test_no_answer_of_the_service_is_taken_as_it_is() -> None:
    for file in Path(fanout.client.__file__).parent.glob("*.py"):
        assert not re.findall(r"\b[A-Z]\w+\(\*\*(?!\{name)", file.read_text()), file.name
