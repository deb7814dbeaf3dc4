"""`fedpt convert verify` and `inspect`: is a file what it was made from, and what is it at all?

Registered in `converters.cli`. What is heavy is imported when called.
"""

from pathlib import Path
from typing import Annotated

import typer


def verify(
    files: Annotated[
        list[Path],
        typer.Argument(help="GGUF models, such as several types of one.", dir_okay=False),
    ],
    against: Annotated[
        Path,
        typer.Option(help="Their source: a transformers folder, a GGUF file, or owner/name."),
    ],
    text: Annotated[
        Path | None,
        typer.Option(
            help="Text to compare on, UTF-8.",
            dir_okay=False,
            show_default="one in 14 languages",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Numbers as JSON, not a table.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="A PNG file for quality against size.", dir_okay=False),
    ] = None,
) -> None:
    """Measure how close GGUF models are to what they were made from.

    Perplexity, mean KL divergence, how often both find the same token most likely, and the largest
    difference of two logits; a folder is computed by torch, files by llama.cpp.
    """
    import json

    from fedpt.shared_cores import let_others_run

    let_others_run()
    from converters import verify_report
    from converters.verify import verify as compare
    from fedpt.progress_bar import progress_bar

    with progress_bar("Verifying") as on_progress:
        result = compare(files, against, text, on_progress=on_progress)
    if plot:
        verify_report.plot(result, plot)
    if as_json:
        print(json.dumps(verify_report.as_json(result), indent=2))
    else:
        print(verify_report.as_table(result))


def inspect(
    path: Annotated[
        Path, typer.Argument(help="A GGUF model or adapter, a transformers or a PEFT folder.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Say what a file or folder is, in one screen: reads headers only."""
    import json

    from converters.inspection import inspect as look

    found = look(path)
    print(json.dumps(found.as_json(), indent=2) if as_json else found.as_text())
