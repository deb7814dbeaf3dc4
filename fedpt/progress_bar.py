"""Progress as a bar on standard error; for command lines."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from fedpt.progress import OnProgress, Progress


@contextmanager
def progress_bar(title: str) -> Iterator[OnProgress]:
    """A bar with elapsed and remaining time while the block runs; gone when it ends.

    A log file has no use for bars: without a terminal there is none.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)

        def on_progress(progress: Progress) -> None:
            bar.update(
                task,
                completed=progress.done,
                total=progress.total,
                description=progress.note or title,
            )

        yield on_progress
