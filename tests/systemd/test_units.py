"""The unit files, as systemd itself reads them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.systemd.needs import require
from tests.systemd.units import SERVICE, SOCKET, UNITS, judged

MOST_EXPOSED = 20
"""Tenths of `systemd-analyze security`'s score."""
NEWER_THAN_252 = {"notify-reload.conf"}
DROP_INS = sorted((UNITS / "drop-ins").glob("*.conf"))


@pytest.fixture(autouse=True, scope="module")
def systemd_analyze() -> None:
    require("" if shutil.which("systemd-analyze") else "not installed: systemd-analyze")


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=40)


def verify(*paths: Path) -> None:
    """For systemd a key or value that it does not know is a warning, with exit code 0: nothing may be said at all."""
    run = analyze("verify", "--man=no", *map(str, paths))
    assert (run.returncode, run.stderr, run.stdout) == (0, "", "")


@pytest.mark.parametrize("kind", [".", "user"])
def test_systemd_has_nothing_to_say_about_our_units(kind: str, tmp_path: Path) -> None:
    verify(*[judged(UNITS / kind / name, tmp_path) for name in (SERVICE, SOCKET)])


@pytest.mark.parametrize("drop_in", [one for one in DROP_INS if one.name not in NEWER_THAN_252], ids=lambda p: p.name)
def test_nor_about_the_drop_ins(drop_in: Path, tmp_path: Path) -> None:
    service, socket = (judged(UNITS / name, tmp_path) for name in (SERVICE, SOCKET))
    directory = tmp_path / f"{SERVICE}.d"
    directory.mkdir()
    shutil.copy(drop_in, directory)
    verify(service, socket)


def test_systemd_does_complain_where_there_is_reason(tmp_path: Path) -> None:
    service = judged(UNITS / SERVICE, tmp_path)
    service.write_text(service.read_text().replace("WatchdogSec=", "WatchDogSec="))
    assert "WatchDogSec" in analyze("verify", "--man=no", str(service)).stderr


def test_the_service_is_hardened(tmp_path: Path) -> None:
    service = str(judged(UNITS / SERVICE, tmp_path))
    run = analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSED}", service)
    assert run.returncode == 0, run.stdout[-300:]


@pytest.mark.parametrize("kind", [".", "user"])
def test_what_the_daemon_relies_on_is_in_its_unit(kind: str) -> None:
    lines = (UNITS / kind / SERVICE).read_text().splitlines()
    wanted = {"Type=notify", "NotifyAccess=main", "KillMode=mixed", "RestartPreventExitStatus=78", "LimitCORE=0"}
    assert wanted | {"RuntimeDirectoryPreserve=yes", "Environment=PYTHONFAULTHANDLER=1"} <= set(lines)


def test_what_kills_node_is_not_in_the_unit() -> None:
    settings = re.findall(r"^(\w+)=", (UNITS / SERVICE).read_text(), re.MULTILINE)
    assert not {"MemoryDenyWriteExecute", "ProcSubset", "PrivateUsers"} & set(settings)


def test_the_installer_says_how_it_is_used() -> None:
    run = subprocess.run([str(UNITS / "install.sh")], capture_output=True, text=True, timeout=20)
    assert (run.returncode, run.stderr) == (2, "usage: install.sh system|user\n")
