"""The units, judged by systemd itself: no unknown key, nothing missing, a sandbox that holds."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.fleet.boards import BOARDS

DEPLOY = Path(__file__).parents[3] / "deploy"
FOLDERS = (DEPLOY / "board" / "systemd", DEPLOY / "server" / "systemd")
UNITS = sorted(path for folder in FOLDERS for path in folder.glob("*.*") if path.is_file())
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
DAEMONS = [unit for unit in SERVICES if "Type=notify" in unit.read_text()]

SYSTEM_UNITS = Path("/usr/lib/systemd/system")

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None or not (SYSTEM_UNITS / "sysinit.target").exists(),
    reason="needs systemd-analyze and systemd's units: apt install systemd",
)


def _analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system with our units and stand-ins for what they start."""
    shutil.copytree(SYSTEM_UNITS, tmp_path / "usr/lib/systemd/system", symlinks=True)
    for folder in FOLDERS:
        shutil.copytree(folder, tmp_path / "etc/systemd/system", dirs_exist_ok=True)
    limits = tmp_path / "etc/systemd/system/fedpt-device.service.d/board.conf"
    limits.parent.mkdir()
    limits.write_text(BOARDS[0].limits)
    for unit in SERVICES:
        for line in re.findall(r"^Exec\w+=(/\S+)", unit.read_text(), re.MULTILINE):
            program = tmp_path / line[1:]
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text("#!/bin/sh\n")
            program.chmod(0o755)
    return tmp_path


def _complaints(root: Path) -> str:
    units = [root / "etc/systemd/system" / unit.name for unit in UNITS]
    return _analyze("verify", "--man=no", f"--root={root}", *units).stderr


def test_systemd_has_nothing_to_say_about_any_unit(root: Path) -> None:
    for drop_in in (root / "etc/systemd/system").glob("fedpt-*.service.d/*.conf"):
        # systemd older than the board's or the server's may judge here
        lines = drop_in.read_text().splitlines()
        drop_in.write_text("\n".join(line for line in lines if not line.startswith("Restart")))
    assert _complaints(root) == ""


def test_a_misspelt_key_would_be_found(root: Path) -> None:
    unit = root / "etc/systemd/system/fedpt-device.service"
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchdogSecs="))
    assert "Unknown key 'WatchdogSecs'" in _complaints(root)


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_every_service_is_shut_in(unit: Path) -> None:
    judged = _analyze("security", "--offline=yes", "--no-pager", unit)
    found = re.search(r"exposure level for .*: ([\d.]+)", judged.stdout)
    assert found is not None, judged.stderr
    assert float(found[1]) <= 3.0


@pytest.mark.parametrize("unit", DAEMONS, ids=lambda unit: unit.name)
def test_every_daemon_is_watched_and_never_given_up(unit: Path) -> None:
    lines = set(unit.read_text().splitlines())
    assert {"Restart=always", "StartLimitIntervalSec=0"} <= lines
    assert {"WatchdogSec=60", "WatchdogSec=300"} & lines
    assert not {"User=root", "User="} & lines


def test_waits_between_restarts_grow_on_servers_as_on_boards() -> None:
    drop_in = DEPLOY / "server" / "systemd" / "fedpt-.service.d" / "back-off.conf"
    grows = {line for line in BOARDS[0].limits.splitlines() if line.startswith("Restart")}
    assert grows == {"RestartSteps=6", "RestartMaxDelaySec=300"}
    assert grows < set(drop_in.read_text().splitlines())


def test_only_the_enrolment_service_can_read_the_authoritys_key() -> None:
    for unit in DAEMONS:
        is_enrolment = unit.name == "fedpt-enrolment.service"
        assert ("User=fedpt-enrolment\n" in unit.read_text()) == is_enrolment
