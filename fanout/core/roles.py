"""The rights of each role of an API key: one table of methods and paths. Pure."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

__all__ = ["ROLES", "Role", "may"]

Role: TypeAlias = Literal["app", "send", "devices", "read", "operator"]

ROLES: dict[Role, str] = {
    "app": "all that the app may do",
    "send": "send, follow and cancel notifications",
    "devices": "the directory of devices",
    "read": "read, and change nothing; no user is exported",
    "operator": "metrics, the audit log, the app's keys and host names, and follow, pause, resume and cancel notifications",
}
"""Each role and the use of its keys."""

_GRAPH = r"(?:/beta|/v1\.0)?/me/notifications"
_NOTIFICATIONS = r"/v1/notifications"
_METRICS = r"/metrics"
_AUDIT = r"/v1/audit"
_EXPORT = r"/v1/export"
_OWN = r"/v1/(?:keys|hosts)"
_REST = rf"/(?!metrics$)(?!v1/audit$)(?!{_OWN[1:]}(?:/|$)).*"
_ALLOWED: dict[Role, tuple[tuple[str, str], ...]] = {
    "app": (("GET|POST|PUT|PATCH|DELETE", _REST),),
    "send": (
        ("GET", rf"{_NOTIFICATIONS}/.+"),
        ("POST", rf"{_NOTIFICATIONS}(?:/[^/]+/cancel)?"),
        ("POST", rf"{_GRAPH}/?"),
        ("GET", rf"{_GRAPH}/.+"),
    ),
    "devices": (("GET|POST|PATCH|DELETE", r"/v1/endpoints(?:/.*)?"),),
    "read": (("GET", rf"(?!{_EXPORT}(?:/|$)){_REST}"),),
    "operator": (
        ("GET", _METRICS),
        ("GET", _AUDIT),
        ("GET|POST", _OWN),
        ("DELETE", rf"{_OWN}/.+"),
        ("GET", rf"{_NOTIFICATIONS}/.+"),
        ("POST", rf"{_NOTIFICATIONS}/[^/]+/(?:cancel|pause|resume)"),
    ),
}
_RULES = {
    role: tuple((frozenset(methods.split("|")), re.compile(path, re.DOTALL)) for methods, path in rules)
    for role, rules in _ALLOWED.items()
}


def may(role: Role, method: str, path: str) -> bool:
    """Whether a key of that role may call `method` (in capitals; HEAD counts as GET) at `path`, below where the service
    is mounted."""
    method = "GET" if method == "HEAD" else method
    return any(method in methods and pattern.fullmatch(path) for methods, pattern in _RULES[role])
