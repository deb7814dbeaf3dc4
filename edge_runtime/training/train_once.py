"""`fedpt device train`'s work: train once, and leave adapter, GGUF and report in a folder.

Nothing of it is seen before all of it is there: until then the folder holds a checkpoint only, from
which the same command goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from converters.adapter_to_gguf import convert_adapter
from edge_runtime.training.fine_tuning import FineTuned, Request, fine_tune
from edge_runtime.training.loss_curve import plot_losses, require_matplotlib
from edge_runtime.training_job import CHECKPOINT_NAME, TrainingResult, TrainingStep
from fedpt.adapters import Adapter, read_peft_folder, write_peft_folder
from fedpt.files import write_json
from fedpt.gguf_file import GgufFile, read_gguf, weights_sha256
from fedpt.low_rank import with_rank

ADAPTER_NAME: Final = "adapter"
GGUF_NAME: Final = "adapter.gguf"
REPORT_NAME: Final = "report.json"
PLOT_NAME: Final = "loss.png"


@dataclass(frozen=True, slots=True)
class Once:
    """A request, and where its outcome goes."""

    request: Request
    out: Path
    with_plot: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went, and the same with all that it was made of."""

    result: TrainingResult
    report: dict[str, object]


def train_once(once: Once, *, on_step: Callable[[TrainingStep], None]) -> Outcome:
    """Train and write everything.

    Raises:
        FedptError: Anything expected; what an earlier run left in the folder is as it was.
    """
    if once.with_plot:
        require_matplotlib()
    checkpoint = once.out / CHECKPOINT_NAME
    request = replace(once.request, checkpoint=checkpoint)
    tuned = fine_tune(request, on_step=on_step)
    report = _report(request, tuned)
    write_peft_folder(tuned.adapter, once.out / ADAPTER_NAME)
    convert_adapter(tuned.adapter, read_gguf(request.base), once.out / GGUF_NAME)
    if once.with_plot:
        plot_losses(tuned.position, tuned.epoch_steps, once.out / PLOT_NAME)
    write_json(once.out / REPORT_NAME, report)
    checkpoint.unlink(missing_ok=True)
    return Outcome(tuned.result, report)


def adapter_in(folder: Path, rank: int | None = None) -> Callable[[GgufFile], Adapter]:
    """Start from a PEFT adapter, such as an earlier training left, cut to `rank` if it has more."""

    def start(file: GgufFile) -> Adapter:
        adapter = read_peft_folder(folder, base_weights=weights_sha256(file))
        return adapter if rank is None else with_rank(adapter, rank)

    return start


def _report(request: Request, tuned: FineTuned) -> dict[str, object]:
    budget = request.budget_bytes
    return {
        "base": str(request.base),
        "data": str(request.data),
        **msgspec.to_builtins(tuned.result),
        "how": msgspec.to_builtins(tuned.how),
        "memory_budget_bytes": budget,
        "rank": tuned.adapter.manifest.rank,
        "seed": request.seed,
        "plan": msgspec.to_builtins(request.plan),
        "losses": list(tuned.position.losses),
        "held_out_nll": list(tuned.position.held_out),
    }
