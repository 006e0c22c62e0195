"""The image, the Compose file and the units: what linters would say of them, and what this program believes of
itself."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from fanout.cli.commands import app
from fanout.config import load
from fanout.registry import Registry

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def steps() -> list[tuple[str, str]]:
    """(instruction, rest) of the Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def commands() -> list[list[str]]:
    """Every `fanout` command that the files start."""
    found = [yaml.safe_load(rest) for name, rest in steps() if name == "CMD"]
    found += [COMPOSE["services"][name]["command"] for name in ("work", "serve")]
    for unit in UNITS:
        (line,) = re.findall(r"^ExecStart=/opt/fanout/bin/fanout (.+)$", unit.read_text(), re.MULTILINE)
        found.append(shlex.split(line))
    return found


def test_the_image_is_as_linters_want_it() -> None:
    """What hadolint asks: a base with a version, no root at the end, exec forms, no cache of pip, no ADD, no
    `latest`."""
    found = steps()
    bases = [rest for name, rest in found if name == "FROM"]
    assert dict(part.split("=") for name, part in found if name == "ARG")["PYTHON"].endswith("-slim-bookworm")
    assert all(base.startswith("python:${PYTHON}") for base in bases)
    names = [name for name, _ in found]
    assert not {"ADD", "MAINTAINER"} & set(names)
    last = len(names) - names[::-1].index("FROM")
    assert [rest for name, rest in found[last:] if name == "USER"] == ["10001:10001"]
    assert names.index("USER", last) > max(at for at, name in enumerate(names) if name in ("COPY", "RUN"))
    for name, rest in found:
        if name in ("ENTRYPOINT", "CMD", "VOLUME"):
            assert isinstance(yaml.safe_load(rest), list), f"{name} is no exec form"
        if "pip install" in rest:
            assert "--no-cache-dir" in rest
            assert "-c constraints.txt" in rest
        assert "sudo" not in rest
        assert "latest" not in rest


def test_what_the_image_copies_is_there_and_let_through() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for name, rest in steps():
        if name == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert f"!{source}" in ignored
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "all" in project["optional-dependencies"]


def test_the_compose_file_asks_for_nothing_more_than_it_needs() -> None:
    for name in ("work", "serve"):
        service = COMPOSE["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["environment"]["FANOUT_STORAGE_FILE"] == "/run/secrets/storage"
        assert service["depends_on"]["postgres"]["condition"] == "service_healthy"
        assert set(service["secrets"]) <= set(COMPOSE["secrets"])
    assert all(port.startswith("127.0.0.1:") for port in COMPOSE["services"]["serve"]["ports"])
    assert "latest" not in (DEPLOY / "compose.yaml").read_text()
    assert not any("password" in str(value).lower() for value in COMPOSE["services"]["work"]["environment"].values())


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_that_is_started_is_understood(words: list[str]) -> None:
    from click.testing import CliRunner
    from typer.main import get_command

    command = get_command(app)
    result = CliRunner().invoke(command, [words[0], "--help"])
    assert result.exit_code == 0
    for word in words[1:]:
        if word.startswith("--"):
            assert word in result.output, word


def test_the_environment_of_the_compose_file_is_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "storage").write_text("postgresql://fanout:x@postgres/fanout")
    (tmp_path / "fanout.toml").write_text(
        '[apps.default.transports.fcm]\nauth = "application_default"\nproject_id = "p"\n'
    )
    environ = dict(COMPOSE["services"]["work"]["environment"]) | {"FANOUT_LOG_FORMAT": "json"}
    environ |= {"FANOUT_CONFIG": str(tmp_path / "fanout.toml"), "FANOUT_STORAGE_FILE": str(tmp_path / "storage")}
    settings = load(None, Registry().settings_type, environ)
    assert settings.storage == "postgresql://fanout:x@postgres/fanout"


def linter() -> str | None:
    """hadolint, which is among the packages of this environment where there is a wheel of it."""
    return shutil.which(
        "hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    )


@pytest.mark.external
@pytest.mark.skipif(linter() is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing() -> None:
    found = subprocess.run(
        [str(linter()), "--no-color", str(DEPLOY / "Dockerfile")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (found.returncode, found.stdout) == (0, "")


def composer() -> list[str] | None:
    for words in (["docker", "compose"], ["podman", "compose"], ["docker-compose"]):
        if (
            shutil.which(words[0])
            and not subprocess.run([*words, "version"], capture_output=True, check=False).returncode
        ):
            return words
    return None


@pytest.mark.external
def test_compose_understands_its_file(tmp_path: Path) -> None:
    words = composer()
    if words is None:
        pytest.skip("docker compose is not installed")
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    found = subprocess.run(
        [*words, "-f", str(tmp_path / "deploy" / "compose.yaml"), "config"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert yaml.safe_load(found.stdout)["services"]["work"]["read_only"] is True


@pytest.mark.external
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_the_units_and_finds_them_confined(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text()
    assert "Type=notify" in text
    assert "RestartPreventExitStatus=2" in text
    program = tmp_path / "fanout"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = tmp_path / unit.name
    copy.write_text(text.replace("/opt/fanout/bin/fanout", str(program)))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = [line for line in verified.stderr.splitlines() if unit.name in line]
    assert (verified.returncode, said) == (0, [])
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout[-400:]
    assert sys.platform == "linux"
