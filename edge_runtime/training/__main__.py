"""`python -m edge_runtime.training FOLDER`: do the training job that lies in FOLDER.

Started by the device daemon; ends with it. Progress goes to standard output as JSON lines, an
expected failure as one line to standard error with exit code 1. May be paused at any moment.
"""

import contextlib
import sys
import traceback
from pathlib import Path

import msgspec

from edge_runtime.training.memory_fence import told_when_out_of_memory
from edge_runtime.training.memory_plan import MEGABYTE
from edge_runtime.training.running_time import running_clock
from edge_runtime.training_job import (
    CHECKPOINT_NAME,
    UPDATE_NAME,
    TrainingJob,
    TrainingStep,
    read_paused,
)
from fedpt.adapters import Adapter, adapter_from_bytes, adapter_to_bytes
from fedpt.drivers.child_process import end_with_parent
from fedpt.errors import FedptError
from fedpt.files import write_bytes
from fedpt.job_folder import read_job, write_result
from fedpt.low_rank import with_rank


def main(folder: Path) -> None:
    """Train, then leave the update and the result.

    And the checkpoint: until the daemon has kept what came of it, that is where the same comes from
    again, in a moment.

    Raises:
        FedptError: Anything expected; the caller prints it.
    """
    import torch  # seconds, in which our parent must be able to pause us, or may end

    from edge_runtime.training.fine_tuning import Request, fine_tune

    job = read_job(folder, TrainingJob)
    torch.set_num_threads(job.threads)
    checkpoint = folder / CHECKPOINT_NAME
    request = Request(
        base=Path(job.small),
        data=Path(job.data),
        up_to_place=job.up_to_place,
        plan=job.plan,
        seed=job.seed,
        start=lambda _: _start(job),
        checkpoint=checkpoint,
        checkpoint_steps=job.checkpoint_steps,
        precision=job.precision,
        budget_bytes=job.memory_budget_mb and job.memory_budget_mb * MEGABYTE,
        clock=running_clock(folder),
        is_fenced=True,
    )
    with told_when_out_of_memory():
        tuned = fine_tune(request, on_step=_report)
    write_bytes(folder / UPDATE_NAME, adapter_to_bytes(tuned.adapter), mode=0o600)
    paused = read_paused(folder)
    write_result(folder, msgspec.structs.replace(tuned.result, paused_seconds=paused))


def _start(job: TrainingJob) -> Adapter:
    """The federation's adapter, or the best of it that our rank can hold."""
    adapter = adapter_from_bytes(Path(job.adapter).read_bytes())
    return adapter if job.rank is None else with_rank(adapter, job.rank)


def _offer_ourselves() -> None:
    """When memory runs short, the kernel ends the training first, not the assistant."""
    with contextlib.suppress(OSError):  # no Linux, or not allowed
        Path("/proc/self/oom_score_adj").write_text("800")


def _report(step: TrainingStep) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(step) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    end_with_parent()
    _offer_ourselves()
    try:
        main(Path(sys.argv[1]))
    except FedptError as failure:
        sys.exit(str(failure))
    except Exception as failure:  # noqa: BLE001  # the last line, which goes far, holds no data
        traceback.print_exc()
        sys.exit(f"the training process failed with {type(failure).__name__}; see the log")
