"""The image's steps, run in a root of its own where no container engine is at hand; then the program in it, as the
image starts it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fanout_kit.ports import free_port

ROOT = Path(__file__).parents[2]
SCRIPT = r"""
set -e
R="$1"; PREFIX="$2"
mkdir -p "$R"/usr "$R"/proc "$R"/dev "$R"/tmp "$R"/src "$R"/opt "$R"/etc "$R"/var/lib "$R"/run
for name in bin sbin lib lib64; do ln -sfn "usr/$name" "$R/$name"; done
mount --bind /usr "$R/usr" && mount -o remount,ro,bind "$R/usr"
mkdir -p "$R$PREFIX"
mount --bind "$PREFIX" "$R$PREFIX" && mount -o remount,ro,bind "$R$PREFIX"
mount --rbind /dev "$R/dev"
mount -t proc proc "$R/proc"
cp -r /etc/passwd /etc/group /etc/shadow /etc/gshadow /etc/login.defs /etc/resolv.conf /etc/hosts /etc/nsswitch.conf /etc/ssl "$R/etc/"
if [ -n "$PIP_FIND_LINKS" ] && [ -d "$PIP_FIND_LINKS" ]; then mkdir -p "$R$PIP_FIND_LINKS"; mount --bind "$PIP_FIND_LINKS" "$R$PIP_FIND_LINKS"; fi
if [ -e /etc/pip.conf ]; then cp /etc/pip.conf "$R/etc/"; fi
shift 2
for step in "$@"; do chroot "$R" /usr/bin/env PATH="$PREFIX/bin:/usr/sbin:/usr/bin:/sbin:/bin" /bin/sh -ec "cd /src; $step"; done
rm -rf "$R/src"
mount -t tmpfs tmpfs "$R/tmp"
mkdir "$R.volume" && chown 10001:10001 "$R.volume"
mount --bind "$R" "$R" && mount -o remount,ro,bind "$R"
mount --rbind /dev "$R/dev"
mount --bind /usr "$R/usr" && mount --bind "$PREFIX" "$R$PREFIX" && mount -t proc proc "$R/proc" && mount -t tmpfs tmpfs "$R/tmp"
mount --bind "$R.volume" "$R/var/lib/fanout"
chroot --userspec=10001:10001 "$R" /usr/bin/env -i PATH=/opt/fanout/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 FANOUT_LOG_FORMAT=json FANOUT_STORAGE=sqlite:fanout.db \
    FANOUT_APPS__DEFAULT__TRANSPORTS__FCM__AUTH=application_default FANOUT_APPS__DEFAULT__TRANSPORTS__FCM__PROJECT_ID=p \
    PORT="$PORT" HEALTH="$HEALTH" /bin/sh -ec '
cd /var/lib/fanout; if touch /opt/x 2>/dev/null; then exit 9; fi; id -u; fanout --version; fanout work --drain; ls
for role in work "serve --port 0"; do
  fanout $role --metrics "127.0.0.1:$PORT" & pid=$!
  until python -c "$HEALTH" 2>/dev/null; do kill -0 $pid; done
  kill $pid; wait $pid; echo "healthy: $role"
done'
"""


def health() -> str:
    """The program that the image's HEALTHCHECK runs."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "deploy" / "Dockerfile").read_text())
    (words,) = re.findall(r"^HEALTHCHECK .* CMD (\[.+\])$", text, re.MULTILINE)
    python, flag, program = yaml.safe_load(words)
    assert (python, flag) == ("python", "-c")
    return str(program)


def run_steps() -> list[str]:
    """What the Dockerfile runs, in order."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "deploy" / "Dockerfile").read_text())
    return re.findall(r"^RUN (.+)$", text, re.MULTILINE)


@pytest.mark.external
@pytest.mark.long("the files are checked")
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root on Linux, to mount and to chroot")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
def test_the_image_can_be_made_and_works_read_only_without_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "src").mkdir(parents=True)
    for name in ("pyproject.toml", "hatch_build.py", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root / "src")
    for name in ("fanout", "transports"):
        shutil.copytree(ROOT / name, root / "src" / name, ignore=shutil.ignore_patterns("__pycache__"))
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("this sandbox lets nobody mount")
    port = str(free_port())
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", SCRIPT, "sh", str(root), sys.base_prefix, *run_steps()],
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
        env={**os.environ, "PORT": port, "HEALTH": health().replace("9464", port)},
    )
    if "No matching distribution" in done.stderr or "Could not find a version" in done.stderr:
        pytest.skip("no package index is at hand")
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.split()
    assert "10001" in lines
    assert "fanout.db" in lines
    assert "healthy: work" in done.stdout
    assert "healthy: serve" in done.stdout
