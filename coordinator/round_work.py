"""The long steps of a round, each in a child process.

`python -m coordinator.round_work STEP FOLDER` does one. They end with the coordinator, leave their
result last, and may be done again from the beginning: a restarted coordinator does just that. Their
memory goes back to the system when they end.
"""

import sys
import time
from pathlib import Path

from converters.adapter_to_gguf import convert_adapter
from coordinator.evaluation import encode_for, evaluate, longest_text
from coordinator.lessons import make_lessons
from coordinator.round_job import (
    ADAPTER_NAME,
    DISTIL,
    EVALUATE,
    DistillationJob,
    DistillationResult,
    EvaluationJob,
)
from coordinator.settings import DistillationSettings
from coordinator.state import Evaluation
from coordinator.steered_batch import Trio
from fedpt.adapters import adapter_from_bytes, adapter_to_bytes
from fedpt.chat import encode_prompt
from fedpt.drivers.child_process import end_with_parent
from fedpt.drivers.llama import LlamaModel
from fedpt.errors import FedptError
from fedpt.examples import read_examples, read_prompts
from fedpt.files import write_bytes
from fedpt.gguf_file import read_gguf
from fedpt.job_folder import read_job, write_result
from fedpt.progress import Progress
from fedpt.proxy_tuning import Coefficients


def evaluate_round(folder: Path) -> Evaluation:
    """Do the evaluation in a folder.

    Raises:
        FedptError: A file is missing or does not fit.
    """
    job = read_job(folder, EvaluationJob)
    examples = read_examples(Path(job.examples))
    with LlamaModel(Path(job.small), vocabulary_only=True) as model:
        longest = longest_text(encode_for(model, examples), answer_tokens=job.answer_tokens)
    expert = _as_gguf(folder, Path(job.adapter), Path(job.small))
    with Trio(
        Path(job.small), expert, Path(job.large), longest=longest, threads=job.threads
    ) as trio:
        result = evaluate(
            trio,
            examples,
            answer_tokens=job.answer_tokens,
            known_answers={
                way: answers
                for way, answers in job.known_answers.items()
                if len(answers) == len(examples)  # else the file was edited meanwhile
            },
            on_progress=_report,
        )
    write_result(folder, result)
    return result


def distil_round(folder: Path) -> DistillationResult:
    """Do the distillation in a folder.

    Raises:
        FedptError: A file is missing or does not fit, or the loss is no longer finite.
    """
    import torch

    from coordinator.distillation import distil  # which needs torch; evaluation does not

    job = read_job(folder, DistillationJob)
    started = time.monotonic()
    if job.threads:
        torch.set_num_threads(job.threads)
    public = read_prompts(Path(job.prompts))
    count = min(job.prompt_count, len(public))
    chosen = [public[(job.first_prompt + offset) % len(public)] for offset in range(count)]
    small = Path(job.small)
    with LlamaModel(small, vocabulary_only=True) as model:
        prompts = [encode_prompt(model, one.prompt, system=one.system) for one in chosen]
    longest = max(map(len, prompts)) + job.answer_tokens
    steering = job.coefficients
    coefficients = Coefficients(steering.alpha, steering.beta, steering.gamma)
    expert = _as_gguf(folder, Path(job.adapter), small)
    with Trio(small, expert, Path(job.large), longest=longest, threads=job.threads) as trio:
        lessons = make_lessons(
            trio,
            prompts,
            coefficients,
            answer_tokens=job.answer_tokens,
            on_progress=lambda done: _report_step(done, len(prompts)),
        )
    adapter = adapter_from_bytes(Path(job.adapter).read_bytes())
    settings = DistillationSettings.model_validate(job.settings)
    distilled = distil(small, adapter, lessons, settings, seed=job.seed, on_progress=_report_step)
    write_bytes(folder / ADAPTER_NAME, adapter_to_bytes(distilled.adapter))
    result = DistillationResult(seconds=time.monotonic() - started, loss=distilled.loss)
    write_result(folder, result)
    return result


def _as_gguf(folder: Path, blob: Path, small: Path) -> Path:
    """The adapter as llama.cpp loads it."""
    target = folder / "adapter.gguf"
    convert_adapter(adapter_from_bytes(blob.read_bytes()), read_gguf(small), target)
    return target


def _report_step(done: int, total: int) -> None:
    _report(Progress(done, total))


def _report(progress: Progress) -> None:
    sys.stdout.write(f"{progress.done} {progress.total}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    end_with_parent()
    try:
        {EVALUATE: evaluate_round, DISTIL: distil_round}[sys.argv[1]](Path(sys.argv[2]))
    except FedptError as failure:
        sys.exit(str(failure))
