"""A training as a picture: the loss of every step, and the nll on the held-out examples."""

from pathlib import Path

from edge_runtime.training.checkpoint import Position
from fedpt.errors import UsageError
from fedpt.files import written_aside


def require_matplotlib() -> None:
    """Find out before hours of training.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import matplotlib  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise UsageError("--plot needs matplotlib: pip install matplotlib") from error


def plot_losses(position: Position, epoch_steps: int, target: Path) -> None:
    """Draw a PNG.

    Raises:
        StorageError: It cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="nats a token")
    axes.plot(range(1, len(position.losses) + 1), position.losses, label="loss")
    if position.held_out:
        steps = [epoch * epoch_steps for epoch in range(len(position.held_out))]
        axes.plot(steps, position.held_out, marker="o", label="held-out nll")
    axes.legend()
    with written_aside(target) as aside:
        figure.savefig(aside, format="png", dpi=120)
