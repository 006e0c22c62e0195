"""`doctor`: everything is looked at, although something before it is wrong."""

from __future__ import annotations

from typing import Any


def findings(result: Any) -> dict[tuple[str, str], dict[str, Any]]:
    return {(line["kind"], line["name"]): line for line in result.lines}


def test_all_is_well(shell: Any) -> None:
    result = shell("doctor", "--json")
    assert result.code == 0, result.out
    found = findings(result)
    assert found["transport plugin", "pigeon"]["distribution"] == "pigeon-post"
    assert found["transport plugin", "pigeon"]["version"] == "1.0"
    assert found["storage", "sqlite"]["ok"]
    assert found["binding", "default/pigeon"]["detail"] == "scripted"
    assert "pigeon-post 1.0" in shell.ok("doctor")


def test_each_binding_is_judged_by_itself(shell: Any) -> None:
    shell.config.write_text(
        shell.config.read_text()
        + '[apps.default.transports.doves]\ntype = "dove"\n[apps.default.transports.more]\ntype = "pigeon"\nlimits = 3\n'
    )
    result = shell("doctor", "--json")
    assert result.code == 2
    found = findings(result)
    assert found["binding", "default/pigeon"]["ok"]
    assert "'dove'" in found["binding", "default/doves"]["problem"]
    assert "did you mean limit" in found["binding", "default/more"]["problem"]


def test_a_broken_plugin_and_a_broken_database_are_named(shell: Any) -> None:
    info = shell.folder / "site" / "bad_feathers-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-feathers\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[fanout.transports]\nbroken = no_such_module_here:plugin\n")
    (shell.folder / "fanout.db").write_bytes(b"not a database" * 1000)
    result = shell("doctor", "--json")
    assert result.code == 1
    found = findings(result)
    assert "no_such_module_here" in found["transport plugin", "broken"]["problem"]
    assert found["transport plugin", "broken"]["distribution"] == "bad-feathers"
    assert found["binding", "default/pigeon"]["ok"]
    problems = [line for line in result.lines if line["kind"] == "storage" and not line["ok"]]
    assert problems
    assert "fanout.db" in problems[0]["problem"]
    plain = shell("doctor")
    assert plain.code == 1
    assert "wrong" in plain.out


def test_without_a_configuration_the_plugins_are_listed_all_the_same(shell: Any) -> None:
    shell.config.unlink()
    result = shell("doctor", "--json")
    assert result.code == 2
    found = findings(result)
    assert found["transport plugin", "pigeon"]["ok"]
    assert not found["configuration", ""]["ok"]


def test_nothing_secret_is_shown(shell: Any) -> None:
    shell.config.write_text(
        'storage = "postgresql://me:hush@h/db"\n[apps.default.transports.apns]\nkey = "hush"\ntopic = "t"\n'
    )
    result = shell("doctor")
    assert result.code == 2
    assert "hush" not in result.out + result.err


def test_the_way_to_each_gateway_is_told(shell: Any) -> None:
    shell.config.write_text(
        shell.config.read_text()
        + '[apps.default.transports.wns]\nclient_id = "01234567-89ab-cdef-0123-456789abcdef"\ntenant_id = "example.com"\n'
        + 'client_secret = "s"\nproxy = "http://user:hunter2@127.0.0.1:1"\n'
    )
    result = shell("doctor", "--json")
    found = findings(result)["binding", "default/wns"]
    assert found["ways"] == {
        "login.microsoftonline.com": "through the proxy 127.0.0.1:1",
        "notify.windows.com": "through the proxy 127.0.0.1:1",
    }
    assert not found["ok"]
    assert "login.microsoftonline.com through the proxy 127.0.0.1:1" in shell("doctor").out
    assert "hunter2" not in result.out
