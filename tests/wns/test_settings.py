"""What a WNS binding may be configured with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fanout.plugin import ConfigurationError, Secret
from fanout_wns.auth import token_form
from fanout_wns.settings import WnsSettings

ENTRA: dict[str, Any] = {
    "tenant_id": "11111111-2222-4333-8444-555555555555",
    "client_id": "66666666-7777-4888-8999-000000000000",
    "client_secret": Secret("hunter22"),
}
LIVE: dict[str, Any] = {
    "auth": "live",
    "client_id": "ms-app://s-1-15-2-2972962901-2322836549-3722629029-1345238579-3987825745-2155616079-650196962",
    "client_secret": Secret("hunter22"),
}


def test_entra() -> None:
    settings = WnsSettings(**ENTRA)
    assert settings.token_endpoint == f"https://login.microsoftonline.com/{ENTRA['tenant_id']}/oauth2/v2.0/token"
    assert token_form(settings) == {
        "grant_type": "client_credentials",
        "client_id": ENTRA["client_id"],
        "client_secret": "hunter22",
        "scope": "https://wns.windows.com/.default",
    }
    assert WnsSettings(**ENTRA | {"tenant_id": "example.onmicrosoft.com"}).tenant_id == "example.onmicrosoft.com"


def test_live() -> None:
    settings = WnsSettings(**LIVE)
    assert settings.token_endpoint == "https://login.live.com/accesstoken.srf"
    assert token_form(settings)["scope"] == "notify.windows.com"


def test_no_secret_is_shown() -> None:
    assert "hunter22" not in repr(WnsSettings(**ENTRA))


@pytest.mark.parametrize(
    ("base", "changes", "named"),
    [
        (ENTRA, {"auth": "certificate"}, "auth"),
        (ENTRA, {"tenant_id": ""}, "tenant_id"),
        (ENTRA, {"tenant_id": "common/../x"}, "tenant_id"),
        (ENTRA, {"client_id": "abc"}, "client_id"),
        (ENTRA, {"client_id": LIVE["client_id"]}, 'auth = "live"'),
        (LIVE, {"client_id": "S-1-15-2-1"}, "Package SID"),
        (LIVE, {"tenant_id": "x.com"}, "tenant_id"),
        (ENTRA, {"gateway": "http://localhost"}, "gateway"),
        (ENTRA, {"gateway": "https://localhost/path"}, "gateway"),
        (ENTRA, {"token_url": "http://localhost/token"}, "token_url"),
        (ENTRA, {"token_url": "https://localhost"}, "token_url"),
        (ENTRA, {"ca_file": Path("nowhere.pem")}, "ca_file"),
        (ENTRA, {"connections": 0}, "connections"),
        (ENTRA, {"request_timeout": 0}, "request_timeout"),
        (ENTRA, {"connect_timeout": 1000}, "connect_timeout"),
    ],
)
def test_what_cannot_work_is_named(base: dict[str, Any], changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        WnsSettings(**base | changes)
    assert named in str(caught.value)
    assert "hunter22" not in str(caught.value)
