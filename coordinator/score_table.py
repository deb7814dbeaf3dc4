"""An evaluation as a table for people."""

from collections.abc import Iterator
from contextlib import contextmanager

from coordinator.state import Evaluation
from fedpt.progress import OnProgress, Progress


def score_table(evaluation: Evaluation) -> str:
    """The ways to decode, one a line, best values marked with a star."""
    scores = evaluation.scores
    best = (
        min(score.nll for score in scores.values()),
        max(score.exact_match for score in scores.values()),
        max(score.rouge_l for score in scores.values()),
    )
    chosen = evaluation.coefficients
    lines = [f"{'':<20}{'nll/token':>11}{'exact match':>14}{'ROUGE-L':>10}"]
    for name, score in scores.items():
        marks = [
            "*" if value == top else " "
            for value, top in zip((score.nll, score.exact_match, score.rouge_l), best, strict=True)
        ]
        lines.append(
            f"{name.replace('_', ', '):<20}{score.nll:>10.3f}{marks[0]}"
            f"{score.exact_match:>13.1%}{marks[1]}{score.rouge_l:>9.3f}{marks[2]}"
        )
    lines.append(
        f"calibrated: {chosen.alpha:g} expert + {chosen.beta:g} large - {chosen.gamma:g} antiexpert"
    )
    return "\n".join(lines)


@contextmanager
def progress_bar(what: str) -> Iterator[OnProgress]:
    """A bar on stderr while the block runs."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def on_progress(progress: Progress) -> None:
            bar.update(task, completed=progress.done, total=progress.total)

        yield on_progress
