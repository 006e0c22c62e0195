"""The claims in the issuer's tokens, in the styles that are met in the world. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

__all__ = ["Style", "app_claims", "user_claims", "user_id"]

Style: TypeAlias = Literal["rfc9068", "entra-v1", "entra-v2"]
"""RFC 9068; Microsoft Entra's access tokens of version 1.0 (client in `appid`) and 2.0 (in `azp`)."""

_SPACE = uuid.UUID("7f0c1e0e-3b1b-4d0e-9a5e-0f6d3c1b2a99")


def user_id(user: str, style: Style) -> str:
    """The claim that identifies a user in a token: the name itself, or as with Entra the object id (claim `oid`)."""
    return user if style == "rfc9068" else str(uuid.uuid5(_SPACE, user))


def app_claims(client: str, audience: str, style: Style) -> dict[str, Any]:
    """The claims of an app's own token, without issuer and times."""
    if style == "rfc9068":
        # RFC 9068 has no mark for an app's own token. Users choose their names here, so there must be one.
        return {"sub": client, "client_id": client, "aud": audience, "gty": "client-credentials"}
    principal = str(uuid.uuid5(_SPACE, f"principal of {client}"))
    claims: dict[str, Any] = {"sub": principal, "oid": principal, "aud": audience, "tid": str(_SPACE), "roles": []}
    if style == "entra-v1":
        return {**claims, "appid": client, "appidacr": "1", "idtyp": "app", "ver": "1.0"}
    return {**claims, "azp": client, "azpacr": "1", "idtyp": "app", "ver": "2.0"}


def user_claims(user: str, client: str, audience: str, scopes: Sequence[str], style: Style) -> dict[str, Any]:
    """The claims of a user's token, without issuer and times."""
    if style == "rfc9068":
        return {"sub": user, "client_id": client, "aud": audience, "scope": " ".join(scopes)}
    pairwise = str(uuid.uuid5(_SPACE, f"{user} for {client}"))
    claims = {
        "sub": pairwise,
        "oid": user_id(user, style),
        "aud": audience,
        "tid": str(_SPACE),
        "scp": " ".join(scopes),
        "name": user,
    }
    if style == "entra-v1":
        return {**claims, "appid": client, "appidacr": "1", "ver": "1.0"}
    return {**claims, "azp": client, "azpacr": "1", "ver": "2.0"}
