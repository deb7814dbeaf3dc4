"""`fedpt device personal`: with a device's real local socket, and without its daemon."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from edge_runtime.api.local_api import LocalApi
from edge_runtime.drivers.personal_shelf import FORGOTTEN, PersonalShelf
from edge_runtime.personal import PersonalRecord
from edge_runtime.personal_cli import personal
from edge_runtime.settings import DeviceSettings
from fedpt.errors import DeviceDownError
from fedpt.wire.messages import PersonalStatus
from tests.fakes.served_assistant import ScriptedAssistant

STATUS = PersonalStatus(
    in_use=True, trained_unix_s=1_760_000_000, example_count=40, nll_before=1.5, nll_after=0.75
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "device.toml"
    path.write_text('name = "board-1"\nsmall = "small.gguf"\nstate_dir = "state"\n')
    (tmp_path / "state").mkdir()
    return path


class Daemon:
    """What a device's socket tells and hears."""

    def __init__(self) -> None:
        self.personal: PersonalStatus | None = STATUS
        self.was_asked_to_forget = threading.Event()


@pytest.fixture
def daemon(config: Path) -> Iterator[Daemon]:
    one = Daemon()
    settings = DeviceSettings(
        name="board-1", small=config.parent / "small.gguf", state_dir=config.parent / "state"
    )
    api = LocalApi(
        ScriptedAssistant(),
        settings,
        status=lambda: {"personal": msgspec.to_builtins(one.personal)},
        forget_personal=one.was_asked_to_forget.set,
    )
    api.start()
    yield one
    api.stop()


def run(*words: object) -> str:
    done = CliRunner().invoke(personal, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_show_tells_what_the_daemon_knows(daemon: Daemon, config: Path) -> None:
    lines = run("show", "--config", config).splitlines()
    assert lines[0] == "in use"
    assert lines[1].endswith(" on 40 examples")
    assert lines[2] == "nll on held-out examples 1.500 before, 0.750 after"
    told = json.loads(run("show", "--config", config, "--json"))
    assert msgspec.convert(told, PersonalStatus) == STATUS
    daemon.personal = PersonalStatus(training_done=0.25, why_not="waits: 82 °C")
    assert run("show", "--config", config).splitlines() == [
        "not in use", "being trained, 25%", "waits: 82 °C"
    ]  # fmt: skip
    daemon.personal = None
    assert run("show", "--config", config).startswith("none: [personal] enabled = true")


def test_a_running_daemon_forgets(daemon: Daemon, config: Path) -> None:
    run("forget", "--config", config)
    assert daemon.was_asked_to_forget.is_set()


def test_without_a_daemon_the_files_are_deleted(config: Path) -> None:
    shelf = PersonalShelf(config.parent / "state")
    shelf.settle(PersonalRecord(base="b", federation="f", adapter=shelf.keep(b"ours")))
    run("forget", "--config", config)
    record = shelf.record()
    assert record is not None
    assert (record.adapter, record.fault) == ("", FORGOTTEN)
    with pytest.raises(DeviceDownError):
        run("show", "--config", config)
