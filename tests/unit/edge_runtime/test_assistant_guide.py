"""What the guide tells people to type can be typed."""

from pathlib import Path

from edge_runtime.chat.commands import COMMANDS
from tests.fakes.command_line_check import fedpt_commands, require_command

GUIDE = (Path(__file__).parents[3] / "docs" / "assistant.md").read_text(encoding="utf-8")


def test_every_command_of_the_guide_is_one() -> None:
    commands = list(fedpt_commands(GUIDE))
    assert {command[0] for command in commands} == {"chat", "ask", "teach"}
    for arguments in commands:
        require_command(arguments)


def test_every_command_of_the_chat_is_in_the_guide() -> None:
    assert [name for name in COMMANDS if f"`/{name}" not in GUIDE] == ["help"]
