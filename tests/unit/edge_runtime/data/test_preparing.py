"""From examples to tokens."""

from collections.abc import Iterator

import pytest

from edge_runtime.data.preparing import cut, prepare
from fedpt.drivers.llama import LlamaModel
from fedpt.errors import DataFileError
from fedpt.examples import Example
from tests.fakes.tiny_federation import EXAMPLES, TinyFederation

pytestmark = pytest.mark.llama

NUMBERED = dict(enumerate(EXAMPLES, start=1))


@pytest.fixture(scope="module")
def model(tiny: TinyFederation) -> Iterator[LlamaModel]:
    with LlamaModel(tiny.small, vocabulary_only=True) as one:
        yield one


def test_long_examples_are_cut_to_the_room_counted_and_keep_an_answer(model: LlamaModel) -> None:
    whole, short = (prepare(model, NUMBERED, room=room) for room in (1000, 16))
    assert (whole.truncated, short.truncated) == (0, len(EXAMPLES))
    assert max(map(len, short.kept)) == 16
    for before, after in zip(whole.kept, short.kept, strict=True):
        assert after.prompt == before.prompt[-len(after.prompt) :]  # it loses its beginning
        assert after.answer == before.answer[: len(after.answer)]
        assert after.prompt
        assert after.answer


def test_a_budget_may_cut_further(model: LlamaModel) -> None:
    assert cut(prepare(model, NUMBERED, room=1000), 16).truncated == len(EXAMPLES)
    assert cut(prepare(model, NUMBERED, room=1000), 1000).truncated == 0


class Deaf:
    """A tokenizer that knows no answers."""

    chat_template = ""
    end_token = 2
    begin_token = None

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        return [5] * len(text) if special or text != "?" else []


def test_an_answer_of_no_tokens_is_dropped_and_the_others_keep_their_numbers() -> None:
    data = {4: Example("one", "1"), 7: Example("two", "?"), 9: Example("three", "3")}
    prepared = prepare(Deaf(), data, room=100)
    assert (prepared.numbers, prepared.dropped) == ([4, 9], 1)
    with pytest.raises(DataFileError, match="of 1 examples none has an answer"):
        prepare(Deaf(), {7: data[7]}, room=100)
