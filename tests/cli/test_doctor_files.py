"""What `fanout doctor` says of files with secrets that anybody on the machine can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from fanout.cli.doctor_files import exposed
from fanout.config import IssuerSettings, ServiceSettings, UserKeySettings
from fanout.core.secret import Secret
from fanout.service.auth import new_user_key

KEY = new_user_key()


def settings(file: Path | None, ca_file: Path | None = None) -> ServiceSettings:
    secret = Secret(KEY.secret.reveal(), "user key", path=str(file) if file else "")
    issuer = IssuerSettings(issuer="https://x.example", audience="x", apps={"a": "default"}, ca_file=ca_file)
    return ServiceSettings(user_keys=(UserKeySettings(id=KEY.id, secret=secret),), issuers=(issuer,))


@pytest.mark.parametrize(
    ("mode", "word"), [(0o600, ""), (0o640, ""), (0o644, "read"), (0o604, "read"), (0o602, "change")]
)
def test_a_file_with_a_secret(tmp_path: Path, mode: int, word: str) -> None:
    file, public = tmp_path / "users.secret", tmp_path / "ca.pem"
    file.write_text(KEY.secret.reveal())
    public.write_text("certificates are nobody's secret")
    public.chmod(0o644)
    file.chmod(mode)
    found = exposed(settings(file, public), "")
    assert list(found) == ([str(file)] if word else [])
    assert word in found.get(str(file), "")
    assert KEY.secret.reveal() not in str(found)


def test_a_configuration_counts_where_a_secret_stands_in_it(tmp_path: Path) -> None:
    file = tmp_path / "fanout.toml"
    file.write_text(f'secret = "{KEY.secret.reveal()}"\n')
    file.chmod(0o644)
    assert list(exposed(settings(None), str(file))) == [str(file)]
    file.write_text('storage = "memory:"\n')
    assert not exposed(settings(None), str(file))
    assert not exposed(settings(tmp_path / "absent"), str(tmp_path / "absent.toml"))
