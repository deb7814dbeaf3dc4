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

    figure, panels = plt.subplots(1, 4, figsize=(16, 4.5), layout="constrained")
    numbers = [one["round"] for one in rounds]
    for panel, (score, title) in zip(panels, _PANELS, strict=False):
        for way in WAYS:
            values = [one[way][score] for one in rounds]
            panel.plot(numbers, values, "o-", color=_COLOURS[way], label=way.replace("_", ", "))
        panel.set(title=title, xlabel="round")
        if score == "nll":
            panel.set_yscale("log")  # large and expert are far apart
        else:
            panel.set_ylim(0, 1)
        panel.grid(alpha=0.3, which="both")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=len(WAYS), frameon=False)
    bottom = [0.0] * len(rounds)
    for phase, shade in (("training", "#9ecae1"), ("evaluation", "#6baed6"),
                         ("distillation", "#2171b5")):  # fmt: skip
        values = [one["seconds"][phase] for one in rounds]
        panels[3].bar(numbers, values, bottom=bottom, color=shade, label=phase)
        bottom = [low + value for low, value in zip(bottom, values, strict=True)]
    panels[3].set(title="seconds by phase", xlabel="round")
    handles, labels = panels[3].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=3, frameon=False)
    for panel in panels:
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)
    with written_aside(path) as aside:
        figure.savefig(aside, format="png", dpi=110)
    plt.close(figure)
