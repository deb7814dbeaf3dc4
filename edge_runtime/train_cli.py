"""`fedpt device train`: fine-tune once, here and now, without a daemon or a federation."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from edge_runtime.training_job import TrainingResult, TrainingStep

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def train(
    base: Annotated[Path, typer.Option(help="The small model, GGUF: the file that serves.")],
    data: Annotated[Path, typer.Option(help="Examples: JSONL, or a device's data store.")],
    out: Annotated[Path, typer.Option(help="Folder for the adapter and the report.")],
    adapter: Annotated[
        Path | None, typer.Option(help="PEFT adapter's folder to start from; unset: a new one.")
    ] = None,
    memory_budget: Annotated[
        str, typer.Option(help="Most memory of this process, all in all, such as 700MB.")
    ] = "",
    rank: Annotated[int, typer.Option(min=1, max=256, help="Rank of a new adapter.")] = 8,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data.")] = 3,
    patience: Annotated[
        int,
        typer.Option(min=0, help="Stop after so many epochs no better on held-out data; 0: never."),
    ] = 2,
    learning_rate: Annotated[float, typer.Option(help="Highest step size.")] = 2e-4,
    batch: Annotated[int, typer.Option(min=1, help="Examples a step.")] = 4,
    context: Annotated[int, typer.Option(min=16, help="Longest example, tokens.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Of order and new adapter.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Unset: all cores.")] = None,
    mode: Annotated[
        Literal["auto", "plain", "expanded", "mapped", "quanto"],
        typer.Option(
            help="How the base is kept; auto: expanded or mapped, the fastest that the budget"
            " allows; quanto: int8 by optimum.quanto, rounded once more."
        ),
    ] = "auto",
    precision: Annotated[
        Literal["float32", "bfloat16", "auto"],
        typer.Option(help="Of the computation; auto: bfloat16 if it is faster here."),
    ] = "auto",
    checkpoint_steps: Annotated[
        int, typer.Option(min=1, help="Saved every so many steps; killed, it goes on from there.")
    ] = 20,
    plot: Annotated[bool, typer.Option("--plot", help="Also draw the losses: loss.png.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Fine-tune an adapter on the very file that llama.cpp serves, within a memory budget.

    Leaves adapter/ (PEFT), adapter.gguf and report.json. Run again after an interruption, the same
    command goes on from the last checkpoint, to the same adapter.

    Example: fedpt device train --base small.gguf --data d.jsonl --out tuned --memory-budget 700MB
    """
    from fedpt.shared_cores import let_others_run

    let_others_run()
    from edge_runtime.training.fine_tuning import Request, new_adapter
    from edge_runtime.training.precision import use_threads
    from edge_runtime.training.train_once import Once, adapter_in, train_once
    from fedpt.progress import Progress
    from fedpt.progress_bar import progress_bar
    from fedpt.wire.messages import TrainingPlan

    use_threads(threads)
    request = Request(
        base=base,
        data=data,
        plan=TrainingPlan(
            epochs=epochs,
            learning_rate=learning_rate,
            batch_examples=batch,
            context_tokens=context,
            patience_epochs=patience,
        ),
        seed=seed,
        start=adapter_in(adapter) if adapter else new_adapter(rank, seed),
        checkpoint=out,
        checkpoint_steps=checkpoint_steps,
        budget_bytes=budget_bytes(memory_budget),
        mode=None if mode == "auto" else mode,
        precision=precision,
    )
    with progress_bar("training") as on_progress:

        def on_step(step: "TrainingStep") -> None:
            on_progress(Progress(step.done, step.total, step_note(step)))

        outcome = train_once(Once(request, out, with_plot=plot), on_step=on_step)
    print(json.dumps(outcome.report, indent=2) if as_json else summary(outcome.result, out))


def budget_bytes(text: str) -> int | None:
    """`700MB`, `1.5GB` or a number of bytes; None for nothing.

    Raises:
        UsageError: It is something else.
    """
    from fedpt.errors import UsageError

    if not text:
        return None
    number = text.upper().rstrip("BGKM ")
    unit = text.upper()[len(number) :].strip()
    try:
        size = int(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise UsageError(f"--memory-budget {text!r}: a size such as 700MB is wanted") from None
    if size < 1:
        raise UsageError(f"--memory-budget {text!r}: a size such as 700MB is wanted")
    return size


def step_note(step: "TrainingStep") -> str:
    """A step beside its bar."""
    held_out = "" if step.held_out_nll is None else f", held-out {step.held_out_nll:.3f}"
    return f"loss {step.loss:.3f}{held_out}, {step.tokens_per_s:.0f} tokens/s"


def summary(result: "TrainingResult", out: Path) -> str:
    """How it went, in three lines."""
    before, after = result.nll_before, result.nll_after
    has_judges = before is not None and after is not None
    judged = (
        f"held-out nll {before:.4f} to {after:.4f} (epoch {result.best_epoch} of {result.epochs})"
        if has_judges
        else "too few to hold any out"
    )
    return (
        f"{result.example_count} examples, loss {result.first_loss:.4f} to {result.loss:.4f},"
        f" {judged}; {result.truncated_count} cut, {result.dropped_count} dropped\n"
        f"{result.tokens_per_s:.0f} tokens/s, {result.peak_bytes / 1e6:.0f} MB at most"
        f" ({result.mode})\n"
        f"wrote {out}/adapter, adapter.gguf, report.json"
    )
