"""A device's assistant while its daemon is down."""

import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from edge_runtime.drivers.personal_shelf import PersonalShelf
from edge_runtime.personal import PersonalRecord
from edge_runtime.settings import AssistantSettings, DeviceSettings, PersonalSettings
from edge_runtime.trying_out import open_device_assistant
from fedpt.gguf_file import read_gguf, weights_sha256
from tests.fakes.tiny_federation import TinyFederation

pytestmark = pytest.mark.llama


@pytest.mark.parametrize(
    ("is_enabled", "is_of_this_base", "answers"),
    [(True, True, "ours"), (False, True, "federation"), (True, False, "federation")],
)
def test_the_adapter_that_the_daemon_answered_with_answers(  # noqa: PLR0917  # a device
    tiny: TinyFederation, tmp_path: Path, is_enabled: bool, is_of_this_base: bool, answers: str
) -> None:
    settings = DeviceSettings(
        name="board-1",
        small=tiny.small,
        state_dir=tmp_path,
        assistant=AssistantSettings(context_tokens=64, threads=1),
        personal=PersonalSettings(enabled=is_enabled),
    )
    (tmp_path / "adapters").mkdir()
    shutil.copy(tiny.adapter_gguf, tmp_path / "adapters" / "federation.gguf")
    shelf = PersonalShelf(tmp_path)
    base = weights_sha256(read_gguf(tiny.small)) if is_of_this_base else "0" * 64
    shelf.settle(PersonalRecord(base=base, federation="f" * 64, adapter="ours"))
    shutil.copy(tiny.adapter_gguf, shelf.gguf("ours"))
    with ExitStack() as stack:
        assistant = open_device_assistant(stack, settings)
        assert (assistant.adapter, assistant.is_personal) == (answers, answers == "ours")
