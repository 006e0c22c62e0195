"""Why a request is not let in, in the words of HTTP."""

from __future__ import annotations

from typing import Literal

from fanout.errors import FanoutError

__all__ = ["AuthError", "forbidden", "unauthorized", "unavailable"]


class AuthError(FanoutError):
    """The caller is not let in. The text is a sentence for the caller, and holds nothing of the token.

    `status`: 401 (no credential, or one that is not good), 403 (a good one that does not allow this) or 503 (the
    issuer's keys cannot be had, so that nothing can be said about the token). `reason` is one stable word for metrics
    and tests, such as `expired`, `signature`, `audience`, `scope`. `retry_after` is in whole seconds, for 503 only.
    """

    def __init__(
        self, status: Literal[401, 403, 503], reason: str, text: str, *, retry_after: int | None = None, scope: str = ""
    ) -> None:
        super().__init__(text)
        self.status: Literal[401, 403, 503] = status
        self.reason = reason
        self.retry_after = retry_after
        self._scope = scope

    @property
    def headers(self) -> dict[str, str]:
        """Headers that the response must carry: `WWW-Authenticate` (RFC 6750, section 3) or `Retry-After`."""
        if self.status == 503:
            return {"Retry-After": str(self.retry_after or 1)}
        if self.reason == "missing":
            return {"WWW-Authenticate": "Bearer"}
        if self.status == 403 and not self._scope:
            return {}
        code = "insufficient_scope" if self._scope else "invalid_token"
        scope = f', scope="{self._scope}"' if self._scope else ""
        return {"WWW-Authenticate": f'Bearer error="{code}", error_description="{self}"{scope}'}


def unauthorized(reason: str, text: str) -> AuthError:
    """401: get a credential, or a better one."""
    return AuthError(401, reason, text)


def forbidden(reason: str, text: str, *, scope: str = "") -> AuthError:
    """403: the credential is good and does not allow this."""
    return AuthError(403, reason, text, scope=scope)


def unavailable(reason: str, text: str, after: float) -> AuthError:
    """503: nothing can be said now; try again in `after` seconds."""
    return AuthError(503, reason, text, retry_after=max(1, -int(-after // 1)))
