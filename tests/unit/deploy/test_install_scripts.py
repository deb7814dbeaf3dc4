"""The install scripts are POSIX shell in which shellcheck finds nothing."""

import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[3] / "deploy"
SCRIPTS = (
    DEPLOY / "board" / "install.sh",
    DEPLOY / "board" / "install-steps.sh",
    DEPLOY / "server" / "install.sh",
)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck: apt install it")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_shellcheck_finds_nothing(script: Path) -> None:
    # server/install.sh finds the steps beside itself only once it is in a fleet's folder
    checked = subprocess.run(
        ["shellcheck", "-x", "-P", script.parent, "-P", DEPLOY / "board", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.stdout == ""
    assert checked.returncode == 0


@pytest.mark.parametrize("script", SCRIPTS[::2], ids=["board", "server"])
def test_an_unknown_argument_changes_nothing_and_says_how(script: Path, tmp_path: Path) -> None:
    copy = tmp_path / "install.sh"
    shutil.copy(script, copy)
    shutil.copy(DEPLOY / "board" / "install-steps.sh", tmp_path)
    tried = subprocess.run(
        ["sh", copy, "--wrong"], capture_output=True, text=True, timeout=60, check=False
    )
    assert tried.returncode == 1
    assert "unknown argument --wrong; usage: sh install.sh" in tried.stderr
