"""What the guide to private data tells people to type and to write is accepted."""

import re
from pathlib import Path

from fedpt.examples import parse_examples
from tests.fakes.command_line_check import fedpt_commands, require_command

GUIDE = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")


def test_every_command_of_the_guide_is_one() -> None:
    commands = list(fedpt_commands(GUIDE))
    verbs = {command[2] for command in commands if command[:2] == ["device", "data"]}
    assert verbs == {"add", "list", "allow", "remove", "export"}
    for arguments in commands:
        require_command(arguments)


def test_every_form_of_the_guide_is_read() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    dolly, alpaca, chat = parse_examples(block.encode(), name="guide")
    assert dolly == alpaca
    assert (chat.system, chat.prompt) == ("You are a house.", "Good night")
