"""From examples to what is trained on: tokens, cut to the context, split; and what was left out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_runtime.training.held_out import split
from fedpt.chat import EncodedExample, Tokenizer, encode_example
from fedpt.errors import DataFileError
from fedpt.examples import Example


@dataclass(frozen=True, slots=True)
class Prepared:
    """Examples as tokens."""

    kept: Sequence[EncodedExample]
    numbers: Sequence[int]
    """Which of the data those are, from 1 on."""
    held_out: Sequence[EncodedExample]
    truncated: int
    """How many were longer than the context: the question lost its beginning, or the answer its
    end."""
    dropped: int
    """How many had an answer that is no tokens."""


def prepare(tokenizer: Tokenizer, examples: Sequence[Example], *, room: int) -> Prepared:
    """Encode, drop what teaches nothing, cut to `room` tokens, and hold some out.

    The split is by what an example was before it was cut.

    Raises:
        DataFileError: Nothing is left.
    """
    encoded = [encode_example(tokenizer, example) for example in examples]
    numbers = [number for number, one in enumerate(encoded, start=1) if _teaches(one)]
    useful = [encoded[number - 1] for number in numbers]
    if not useful:
        raise DataFileError(
            f"of {len(examples)} examples none has an answer that this model's tokenizer knows"
        )
    kept, held_out = split(useful)
    return Prepared(
        kept=[useful[index].truncated(room) for index in kept],
        numbers=[numbers[index] for index in kept],
        held_out=[useful[index].truncated(room) for index in held_out],
        truncated=sum(len(useful[index]) > room for index in [*kept, *held_out]),
        dropped=len(encoded) - len(useful),
    )


def cut(prepared: Prepared, room: int) -> Prepared:
    """The same, cut further where a budget asks for it."""
    longer = sum(len(one) > room for one in [*prepared.kept, *prepared.held_out])
    return replace(
        prepared,
        kept=[one.truncated(room) for one in prepared.kept],
        held_out=[one.truncated(room) for one in prepared.held_out],
        truncated=max(longer, prepared.truncated),
    )


def _teaches(example: EncodedExample) -> bool:
    """Whether there is more to its answer than the token that ends it."""
    return len(example.answer) > 1
