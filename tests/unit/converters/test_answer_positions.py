"""Which positions of a padded batch predict answers."""

import torch

from converters.answer_positions import answer_tokens, at_answers, padded
from fedpt.chat import EncodedExample

EXAMPLES = [EncodedExample((5, 9, 40), (7, 8, 2)), EncodedExample((6,), (90, 2))]


def test_a_batch_is_padded_on_the_right_and_lacks_what_predicts_nothing() -> None:
    assert padded(EXAMPLES).tolist() == [[5, 9, 40, 7, 8], [6, 90, 0, 0, 0]]


def test_lengths_may_be_few() -> None:
    assert padded(EXAMPLES, multiple=4).tolist() == [
        [5, 9, 40, 7, 8, 0, 0, 0],
        [6, 90, 0, 0, 0, 0, 0, 0],
    ]


def test_states_and_tokens_of_answers_stand_at_the_same_places() -> None:
    states = torch.arange(10.0).reshape(2, 5, 1)
    assert at_answers(states, EXAMPLES).flatten().tolist() == [2, 3, 4, 5, 6]
    assert answer_tokens(EXAMPLES).tolist() == [7, 8, 2, 90, 2]
