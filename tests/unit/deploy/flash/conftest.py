"""A fleet with one device, a small Raspberry Pi OS image, and the real command line."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from fedpt.cli import main
from tests.fakes.disk_images import make_fleet, make_pi_image

needs_mtools = pytest.mark.skipif(shutil.which("mcopy") is None, reason="mtools is not installed")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that says what went wrong."""
        lines = [line for line in self.err.splitlines() if "warning:" not in line]
        assert self.code in {1, 2}, self
        assert len(lines) == 1, self.err
        return lines[0]


RunFlash = Callable[..., Outcome]


@pytest.fixture
def run_flash(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> RunFlash:
    """Runs `fedpt flash` as a person does."""
    entry = EntryPoint("flash", "deploy.flash.cli:flash", "fedpt.commands")
    monkeypatch.setattr("fedpt.cli.entry_points", lambda group: [entry])

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main(["flash", *(str(argument) for argument in arguments)])
        out, err = capfd.readouterr()
        return Outcome(int(exit_info.value.code or 0), out, err)

    return run


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    return make_fleet(tmp_path)


@pytest.fixture(scope="session")
def pi_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small image of Raspberry Pi OS: FAT from 4 to 12 MiB, 16 MiB in all."""
    return make_pi_image(tmp_path_factory.mktemp("pi"))


@pytest.fixture
def pi_image(tmp_path: Path, pi_bytes: bytes) -> Path:
    path = tmp_path / "raspios.img"
    path.write_bytes(pi_bytes)
    return path
