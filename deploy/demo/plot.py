"""The rounds as a picture: is the steered large model getting better, and what does it cost?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from deploy.demo.report import WAYS
from fedpt.files import written_aside

_COLOURS: Final = {
    "large": "#7f7f7f",
    "antiexpert": "#c7a76c",
    "expert": "#1f77b4",
    "steered": "#e377c2",
    "steered_calibrated": "#d62728",
}
_PANELS: Final = (
    ("nll", "nats per token (lower is better)"),
    ("exact_match", "exact match"),
    ("intent_accuracy", "intent accuracy"),
)


def plot_rounds(rounds: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a PNG with a panel for each score and one for the seconds by phase.

    Raises:
        StorageError: It could not be written.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, panels = plt.subplots(1, 4, figsize=(16, 4), layout="constrained")
    numbers = [one["round"] for one in rounds]
    for panel, (score, title) in zip(panels, _PANELS, strict=False):
        for way in WAYS:
            values = [one[way][score] for one in rounds]
            panel.plot(numbers, values, "o-", color=_COLOURS[way], label=way.replace("_", ", "))
        panel.set(title=title, xlabel="round")
        panel.set_ylim(bottom=0, top=None if score == "nll" else 1)
        panel.grid(alpha=0.3)
    panels[0].legend(frameon=False, fontsize=9)
    bottom = [0.0] * len(rounds)
    for phase, shade in (("training", "#9ecae1"), ("evaluation", "#6baed6"),
                         ("distillation", "#2171b5")):  # fmt: skip
        values = [one["seconds"][phase] for one in rounds]
        panels[3].bar(numbers, values, bottom=bottom, color=shade, label=phase)
        bottom = [low + value for low, value in zip(bottom, values, strict=True)]
    panels[3].set(title="seconds by phase", xlabel="round")
    panels[3].legend(frameon=False, fontsize=9)
    for panel in panels:
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)
    with written_aside(path) as aside:
        figure.savefig(aside, format="png", dpi=110)
    plt.close(figure)
