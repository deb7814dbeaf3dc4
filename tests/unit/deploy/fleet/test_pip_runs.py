"""pip as a child: what it complains of comes as one line."""

import sys
from pathlib import Path

import pytest

from deploy.fleet.pip_runs import run_pip
from fedpt.errors import FleetError
from fedpt.progress import ignore_progress


@pytest.mark.slow
def test_what_pip_complains_of_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(FleetError, match=r"^pip download failed: .*No matching") as caught:
        run_pip(["download", "no-such-thing-at-all"], on_progress=ignore_progress)
    assert "\n" not in str(caught.value)


def test_a_python_without_pip_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {python}: No module named pip >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(FleetError, match=r"has no pip; run: .*python -m ensurepip"):
        run_pip(["download", "x"], on_progress=ignore_progress)
