"""From examples to what is trained on: tokens, cut to the context, split; and what was left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edge_runtime.data.held_out import split
from fedpt.chat import EncodedExample, Tokenizer, encode_example
from fedpt.errors import DataFileError
from fedpt.examples import Example


@dataclass(frozen=True, slots=True)
class Prepared:
    """Examples as tokens."""

    kept: Sequence[EncodedExample]
    numbers: Sequence[int]
    """Which of the data those are."""
    held_out: Sequence[EncodedExample]
    truncated: int
    """How many were longer than the context: the question lost its beginning, or the answer its
    end."""
    dropped: int
    """How many had an answer that is no tokens."""


def prepare(tokenizer: Tokenizer, examples: Mapping[int, Example], *, room: int) -> Prepared:
    """Encode, drop what teaches nothing, cut to `room` tokens, and hold some out.

    Args:
        tokenizer: Of the model that learns.
        examples: By the number that a person knows them by, in order.
        room: Longest example, tokens.

    The split is by what an example was before it was cut.

    Raises:
        DataFileError: Nothing is left.
    """
    encoded = {number: encode_example(tokenizer, one) for number, one in examples.items()}
    numbers = [number for number, one in encoded.items() if _teaches(one)]
    useful = [encoded[number] for number in numbers]
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
