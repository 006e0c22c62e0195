"""The findings of `fanout doctor` about a WNS binding. Pure: the result of fetching a token, in one sentence."""

from __future__ import annotations

from fanout.plugin import Diagnosis, TokenError
from fanout_wns.settings import WnsSettings

__all__ = ["diagnose"]

_REMEDIES = {
    "AADSTS7000215": "client_secret is wrong: use the secret's Value, not its ID, from Certificates & secrets.",
    "AADSTS7000222": "client_secret has expired: make a new one under Certificates & secrets.",
    "AADSTS700016": "The app client_id = {client} is not in tenant_id = {tenant}: take both from the same app registration.",
    "AADSTS90002": "There is no tenant_id = {tenant}: copy the Directory (tenant) ID of the app registration.",
    "AADSTS900023": "There is no tenant_id = {tenant}: copy the Directory (tenant) ID of the app registration.",
    "AADSTS500011": "The tenant does not know WNS: make the app registration multi-tenant (accounts in any directory).",
}
"""By the error numbers of Microsoft Entra ("Microsoft Entra authentication and authorization error codes")."""

_LIVE = (
    "Microsoft refuses the Package SID and secret: copy both anew from Partner Center (Product management, WNS/MPNS)."
)
_ENTRA = (
    "Microsoft Entra refuses the credential: check tenant_id, client_id and client_secret against the app registration."
)


def diagnose(error: TokenError | None, settings: WnsSettings) -> Diagnosis:
    """The result of fetching a token; None is success."""
    host = settings.token_endpoint.split("/")[2]
    if error is None:
        return Diagnosis(detail=f"{host} gives tokens for client_id = {settings.client_id}.")
    if error.kind == "unavailable":
        return Diagnosis(f"{host} gave no token: check the network, a firewall on TCP 443, and ca_file.", str(error))
    for number, remedy in _REMEDIES.items():
        if number in str(error):
            return Diagnosis(remedy.format(client=settings.client_id, tenant=settings.tenant_id), str(error))
    return Diagnosis(_LIVE if settings.auth == "live" else _ENTRA, str(error))
