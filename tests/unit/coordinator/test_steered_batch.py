"""Many texts at a time give what each gives alone, and what transformers computes."""

import numpy as np
import pytest

from coordinator.evaluation import ANTIEXPERT_ALONE, LARGE_ALONE
from coordinator.steered_batch import BATCH_TEXTS, Trio, groups
from fedpt.chat import EncodedExample
from fedpt.errors import VocabularyMismatchError
from fedpt.proxy_tuning import EXPERT_ALONE, PLAIN, Coefficients
from tests.fakes.tiny_federation import LOGIT_TOLERANCE, Reference, TinyFederation

pytestmark = pytest.mark.llama

WAYS = [PLAIN, EXPERT_ALONE, LARGE_ALONE, ANTIEXPERT_ALONE, Coefficients(1.0, 0.7, 0.4)]
TOKENS = 10


def test_rows_are_those_of_transformers(
    trio: Trio, encoded: list[EncodedExample], reference: Reference
) -> None:
    for example, ours in zip(encoded, trio.answer_rows(encoded), strict=True):
        theirs = reference.rows([*example.prompt, *example.answer])
        start, end = len(example.prompt) - 1, len(example.prompt) + len(example.answer) - 1
        for row, expected in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(row, expected[start:end], atol=LOGIT_TOLERANCE)


@pytest.mark.parametrize("way", WAYS)
def test_batch_answers_are_greedy_by_the_combined_logits(
    trio: Trio, encoded: list[EncodedExample], reference: Reference, way: Coefficients
) -> None:
    prompts = [example.prompt for example in encoded]
    for prompt, answer in zip(prompts, trio.answers(prompts, way, max_tokens=TOKENS), strict=True):
        assert len(answer) <= TOKENS
        assert reference.is_greedy(prompt, answer, way)


def test_a_text_in_a_batch_is_answered_as_alone(trio: Trio, encoded: list[EncodedExample]) -> None:
    prompts = [example.prompt for example in encoded]
    together = trio.answers(prompts, PLAIN, max_tokens=TOKENS)
    assert [trio.answers([one], PLAIN, max_tokens=TOKENS)[0] for one in prompts] == together


@pytest.mark.parametrize(
    "prompts",
    [
        [(1, 20, 30), (1, 20, 30)],
        [(1, 20, 30), (1, 20, 30, 40, 50)],
        [(1, 20, 30), (2, 20, 30)],
        [(7,), (1, 20, 30)],
    ],
    ids=["equal", "one begins the other", "nothing in common", "one token"],
)
def test_shared_beginnings_do_not_matter(trio: Trio, prompts: list[tuple[int, ...]]) -> None:
    together = trio.answers(prompts, PLAIN, max_tokens=TOKENS)
    assert together == [trio.answers([one], PLAIN, max_tokens=TOKENS)[0] for one in prompts]


def test_what_a_batch_did_before_does_not_matter(trio: Trio, encoded: list[EncodedExample]) -> None:
    prompts = [example.prompt for example in encoded]
    first = trio.answers(prompts, PLAIN, max_tokens=TOKENS)
    trio.answer_rows(encoded)
    trio.answers(prompts[::-1], EXPERT_ALONE, max_tokens=3)
    assert trio.answers(prompts, PLAIN, max_tokens=TOKENS) == first


def test_logits_are_shown_before_each_token(trio: Trio, encoded: list[EncodedExample]) -> None:
    shown: list[tuple[int, int]] = []
    answers = trio.answers(
        [encoded[0].prompt, encoded[1].prompt],
        PLAIN,
        max_tokens=3,
        on_logits=lambda slot, row: shown.append((slot, int(row.argmax()))),
    )
    for slot, answer in enumerate(answers):
        assert [token for where, token in shown if where == slot][: len(answer)] == answer


def test_a_full_batch_of_the_longest_texts_fits(trio: Trio) -> None:
    prompts = [tuple(range(first, first + 90)) for first in range(3, 3 + BATCH_TEXTS)]
    assert len(trio.answers(prompts, LARGE_ALONE, max_tokens=10)) == BATCH_TEXTS


def test_models_of_two_vocabularies_are_refused(tiny: TinyFederation) -> None:
    from converters.model_to_gguf import convert_model
    from tests.fakes.tiny_models import make_tiny_llama

    other = make_tiny_llama(tiny.folder / "other", vocabulary=300)
    convert_model(other, other.with_suffix(".gguf"), kind="F32")
    with pytest.raises(VocabularyMismatchError):
        Trio(tiny.small, None, other.with_suffix(".gguf"), longest=16, threads=1)


def test_groups_cover_all_texts_once() -> None:
    parts = groups(2 * BATCH_TEXTS + 1)
    assert [index for part in parts for index in part] == list(range(2 * BATCH_TEXTS + 1))
    assert [len(part) for part in parts] == [BATCH_TEXTS, BATCH_TEXTS, 1]
    assert groups(0) == []
