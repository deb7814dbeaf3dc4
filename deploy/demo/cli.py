"""`fedpt demo`: watch a federation work, from nothing to an assistant that answers."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for report.json, rounds.png, logs and all files.")
    ] = Path("demo-out"),
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of federated training.")] = 3,
    devices: Annotated[int, typer.Option(min=1, max=32, help="Devices, a process each.")] = 3,
    small: Annotated[
        str | None,
        typer.Option(help="Your small model: GGUF, transformers folder, or owner/name on the hub."),
    ] = None,
    large: Annotated[
        str | None, typer.Option(help="Your large model, of the same vocabulary; as --small.")
    ] = None,
) -> None:
    """Watch federated proxy-tuning: real models, real data, separate processes, a real broker.

    Three homes with private smart-home commands train a small language model together; a
    coordinator steers a large one with it; then the on-device assistant answers, alone and steered.

    Examples:
      fedpt demo
      fedpt demo --rounds 5 --devices 4 --out /tmp/demo
      fedpt demo --large ./Qwen3-0.6B --small ./my-small-qwen.gguf
    """
    from deploy.demo.show import run_demo

    run_demo(out, rounds=rounds, devices=devices, small=small, large=large)
