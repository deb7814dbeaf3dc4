"""`fedpt teach`: give a board the answer that should have come."""

from pathlib import Path
from typing import Annotated

import typer


def teach(
    question: Annotated[str, typer.Argument(help="What was asked.")],
    answer: Annotated[str, typer.Argument(help="What should be answered.")],
    config: Annotated[Path, typer.Option(help="A device's settings.")],
) -> None:
    """Add an example to a device's private data: it learns from it in its next round.

    Examples:
      fedpt teach "Good night" '{"intent":"HassTurnOff","area":"house"}' --config device.toml
    """
    from edge_runtime.asking import teach_device
    from edge_runtime.lessons import Lesson, learnt_note

    print(learnt_note(teach_device(config, Lesson(question, answer))))
