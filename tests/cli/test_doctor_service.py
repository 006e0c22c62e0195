"""`doctor` and the service: the keys of each issuer are fetched, and what it needs is said."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import orjson
import pytest

from fanout.cli import doctor
from fanout.service.auth import new_api_key
from fanout.testing.issuer import Fault, LoopbackIssuer

ISSUER = '[[service.issuers]]\nissuer = "{}"\naudience = "us"\napps = {{ shop = "default" }}\n'


async def examined(shell: Any) -> tuple[int, dict[tuple[str, str], dict[str, Any]]]:
    """`fanout doctor --json` as a process, while an issuer runs in this one."""
    words = [sys.executable, "-m", "fanout", "doctor", "--json"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *words, cwd=shell.folder, env=shell.environ, stdout=pipe, stderr=pipe
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = [orjson.loads(line) for line in out.splitlines()]
    assert process.returncode is not None, err
    return process.returncode, {(line["kind"], line["name"]): line for line in lines}


def test_each_issuer_is_asked_for_its_keys(shell: Any) -> None:
    async def ask() -> None:
        async with LoopbackIssuer() as good, LoopbackIssuer() as other, LoopbackIssuer() as broken:
            other.stated_issuer = "https://somebody.else.example"
            broken.faults["keys"] = Fault(status=503)
            text = "".join(ISSUER.format(issuer.url) for issuer in (good, other, broken))
            shell.config.write_text(shell.config.read_text() + text)
            code, found = await examined(shell)
            assert code == 1
            assert found["service", ""]["detail"] == "3 issuers, 0 keys, 0 user keys"
            assert found["issuer", good.url]["ok"]
            assert "of another issuer" in found["issuer", other.url]["problem"]
            assert "answered 503" in found["issuer", broken.url]["problem"]
            assert good.requests["keys"] == 1
            good.faults["discovery"] = Fault(down=True)
            code, found = await examined(shell)
            assert code == 1
            assert "no answer" in found["issuer", good.url]["problem"]

    asyncio.run(ask())


def test_without_that_table_nothing_is_said_of_it(shell: Any) -> None:
    assert "service" not in shell.ok("doctor", "--json")


def test_what_is_wrong_with_its_table_is_said(shell: Any) -> None:
    shell.config.write_text(shell.config.read_text() + "[service]\nhost_name = {}\n")
    result = shell("doctor", "--json")
    assert result.code == 2
    (found,) = [line for line in result.lines if line["kind"] == "service"]
    assert "service.host_name is no setting" in found["problem"]
    assert [line["ok"] for line in result.lines if line["kind"] == "binding"] == [True]


def test_a_missing_extra_is_said(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_api_key()
    shell.config.write_text(shell.config.read_text() + f'[[service.keys]]\nid = "{key.id}"\nhash = "{key.hash}"\n')
    assert shell("doctor").code == 0
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "uvicorn" else object())
    result = shell("doctor")
    assert result.code == 1
    assert "fanout serve needs uvicorn: install the extra 'service'" in result.out
    assert key.hash not in result.out


class WithoutPyJWT:
    """A finder of modules that does not find it."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == "jwt":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_issuers_without_what_judges_their_tokens(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.config.write_text(shell.config.read_text() + ISSUER.format("https://login.example.com/"))
    ours = ("fanout.service.auth.issuer", "fanout.service.auth.keyset")
    for name in [name for name in sys.modules if name.partition(".")[0] == "jwt" or name in ours]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [WithoutPyJWT(), *sys.meta_path])
    result = shell("doctor")
    assert result.code == 2
    assert "service.issuers needs PyJWT: install the extra 'service'" in result.out
