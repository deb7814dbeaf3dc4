"""What the coordinator and the child processes of a round say to each other, in job folders.

`coordinator.round_work` does the work; nothing here needs torch or llama.cpp.
"""

from typing import Final

import msgspec

from fedpt.wire.messages import SteeringCoefficients

EVALUATE: Final = "evaluate"
DISTIL: Final = "distil"

ADAPTER_NAME: Final = "adapter"
"""The distilled adapter's blob, beside the result."""

UNCHANGING_WAYS: Final = ("large", "antiexpert")
"""These do not change from round to round, so their answers are generated once a run."""


class EvaluationJob(msgspec.Struct, frozen=True, kw_only=True):
    """Score the adapter in a blob's file."""

    small: str
    large: str
    adapter: str
    examples: str
    answer_tokens: int
    known_answers: dict[str, list[str]]
    threads: int | None


class DistillationJob(msgspec.Struct, frozen=True, kw_only=True):
    """Teach the adapter in a blob's file the steered answers to some of the public prompts."""

    small: str
    large: str
    adapter: str
    prompts: str
    coefficients: SteeringCoefficients
    first_prompt: int
    """Where this round's prompts begin; they wrap around at the end of the file."""
    prompt_count: int
    answer_tokens: int
    settings: dict[str, float | int | bool]
    threads: int | None
    seed: int


class DistillationResult(msgspec.Struct, frozen=True, kw_only=True):
    """How it went."""

    seconds: float
    loss: float
