"""The answers to refused requests: one table from exceptions to statuses, and one envelope.

The envelope is Microsoft Graph's, on our own routes too: `{"error": {"code", "message", "innerError": {"code",
"request-id", "date"}}}`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from fanout.core.reasons import BY_STATUS
from fanout.errors import (
    Backlogged,
    Conflict,
    ContentRefused,
    EngineClosed,
    NotFound,
    PartAbsent,
    StorageError,
    StorageFull,
    UsageError,
)
from fanout.service.auth import AuthError
from fanout.service.feed.errors import FeedError

__all__ = ["CODES", "Problem", "Refused", "envelope", "problem_of", "sentence"]

CODES = {
    400: "invalidRequest",
    401: "unauthenticated",
    403: "accessDenied",
    404: "itemNotFound",
    405: "notAllowed",
    406: "activityLimitReached",
    408: "invalidRequest",
    409: "conflict",
    410: "resyncRequired",
    412: "resourceModified",
    413: "invalidRequest",
    415: "notSupported",
    429: "activityLimitReached",
    431: "invalidRequest",
    500: "generalException",
    501: "notImplemented",
    503: "serviceNotAvailable",
    505: "notSupported",
    507: "quotaLimitReached",
}
"""Graph's words for its statuses ("Microsoft Graph error responses and resource types"), and ours for those that it has
not."""

_RETRY = {"retry-after": "1"}


class Refused(HTTPException):
    """A request that is answered with `status` and a sentence. An `HTTPException`, so that FastAPI lets it through.

    `reason` is a word of `fanout.core.reasons`, "" for that of the status.
    """

    def __init__(
        self, status: int, code: str, text: str, headers: Mapping[str, str] | None = None, *, reason: str = ""
    ) -> None:
        super().__init__(status, text, dict(headers or {}))
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Problem:
    """The answer: `code` is Graph's word, `reason` ours (`fanout.core.reasons`), "" for that of the status."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""

    @property
    def word(self) -> str:
        """The reason that the answer gives."""
        return self.reason or BY_STATUS.get(self.status, "invalid" if self.status < 500 else "fault")


def problem_of(error: BaseException) -> Problem:
    """The meaning of `error` for a client. Nothing of our own faults is told; that is for the log."""
    match error:
        case Refused():
            return Problem(error.status_code, error.code, str(error.detail), error.headers or {}, error.reason)
        case AuthError():
            return Problem(error.status, CODES[error.status], str(error), _lower(error.headers), error.reason)
        case HTTPException():
            code = CODES.get(error.status_code, "invalidRequest" if error.status_code < 500 else "generalException")
            reason = "route" if error.status_code == 404 else ""
            return Problem(error.status_code, code, str(error.detail), _lower(error.headers or {}), reason)
        case RequestValidationError() | ValidationError():
            return Problem(400, CODES[400], sentence(error.errors(), placed=isinstance(error, RequestValidationError)))
        case NotFound():
            return Problem(404, CODES[404], str(error))
        case Conflict():
            return Problem(409, CODES[409], str(error))
        case FeedError():
            return Problem(error.status, CODES[error.status], str(error), reason=error.reason)
        case Backlogged():
            after = str(max(1, math.ceil(error.retry_after)))
            return Problem(429, CODES[429], str(error), {"retry-after": after}, "backlog")
        case ContentRefused():
            return Problem(400, CODES[400], str(error))
        case StorageFull():
            return Problem(507, CODES[507], "There is no room to store this now.", {"retry-after": "30"})
        case StorageError() | EngineClosed():
            return Problem(503, CODES[503], "Nothing can be stored or read now: try again.", _RETRY)
        case PartAbsent():
            return Problem(501, CODES[501], str(error))
        case UsageError():
            return Problem(400, CODES[400], str(error))
        case _:
            return Problem(500, CODES[500], "The service has a fault; its log has the request-id.")


def envelope(problem: Problem, request_id: str, client_request_id: str, date: str) -> bytes:
    """The body of the answer. `date` is in ISO 8601, UTC."""
    inner = {"code": problem.word, "request-id": request_id, "date": date}
    if client_request_id:
        inner["client-request-id"] = client_request_id
    return orjson.dumps({"error": {"code": problem.code, "message": problem.message, "innerError": inner}})


def sentence(errors: Sequence[Any], *, placed: bool = False) -> str:
    """The first of pydantic's errors as a sentence: the place and the fault, and never the value that stood there.

    `placed`: the first part of each place is FastAPI's word for the part of the request. Where one of several forms is
    allowed, the fault is that of the form that the value has, or names them all.
    """
    first = errors[0]
    form = next((index for index in range(len(first["loc"])) if _is_form(first, index)), None)
    forms = [first] if form is None else [each for each in errors if each["loc"][:form] == first["loc"][:form]]
    first = next((each for each in forms if len(_place(each)) > (form or 0) or each["type"] not in _SORTS), first)
    text = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] in _SORTS:
        same = [each["type"] for each in forms if _place(each) == _place(first)]
        text = f"Input should be {' or '.join(dict.fromkeys(_SORTS[each] for each in same if each in _SORTS))}"
    location = ".".join(_place(first)[1:] if placed else _place(first))
    more = len(errors) - len(forms)
    text += f" ({more} more)" if more else ""
    return f"{location[:200]}: {text}" if location else text


_SORTS = {
    "bool_type": "a boolean",
    "dict_type": "a JSON object",
    "float_type": "a number",
    "int_type": "an integer",
    "list_type": "a JSON array",
    "model_attributes_type": "a JSON object",
    "model_type": "a JSON object",
    "string_type": "a string",
}
"""Pydantic's types of errors that only say of which sort a value should be, and the sort."""
_FORM = re.compile(r"bool|str|int|float|constrained-\w+|dict\[.*\]|\w+In|function-\w+\[.*\]")
"""Pydantic's name for one of several allowed forms, which stands in a place between the names of fields."""


def _place(error: Any) -> list[str]:
    return [str(part) for index, part in enumerate(error["loc"]) if not _is_form(error, index)]


def _is_form(error: Any, index: int) -> bool:
    part, last = error["loc"][index], index == len(error["loc"]) - 1
    own = last and error["type"] == "extra_forbidden"  # the client's own word
    return index > 0 and isinstance(part, str) and not own and _FORM.fullmatch(part) is not None


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
