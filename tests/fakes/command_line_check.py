"""Whether a `fedpt …` command that a file mentions can be called: commands and options exist."""

import re
import shlex
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from typing import Any

from typer.main import get_command

from fedpt.cli import _build


def is_installed(command: str) -> bool:
    """Whether `fedpt COMMAND` is there at all."""
    return any(one.name == command for one in entry_points(group="fedpt.commands"))


def require_command(arguments: Sequence[str]) -> None:
    """Parse the arguments of `fedpt` as the command line does; nothing is run.

    Raises:
        Exception: typer's UsageError. An unknown command or option, or one is missing.
    """
    command: Any = get_command(_build(list(arguments)))  # Any: typer's own click, or click's
    rest, parent = list(arguments), None
    while hasattr(command, "commands"):
        with command.make_context("fedpt", rest[:1], parent=parent) as context:
            _, command, _ = command.resolve_command(context, rest[:1])
        parent, rest = context, rest[1:]
    command.make_context("fedpt", rest, parent=parent)


def fedpt_commands(text: str) -> Iterator[list[str]]:
    """Every `fedpt …` in the code blocks of a README."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            for command in re.findall(r"(?:^|[;|&] |do |exec \w+ )(fedpt [^;#<|]+)", line.strip()):
                yield shlex.split(command)[1:]
