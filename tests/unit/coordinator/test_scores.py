"""ROUGE-L, by the definition: the longest common subsequence of words."""

import pytest

from coordinator.scores import rouge_l


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("the lamp is on", "the lamp is on", 1.0),
        ("", "the lamp", 0.0),
        ("nothing here", "the lamp", 0.0),
        ("the big lamp is", "the lamp is on", 0.75),  # 3 of 4 words, both ways
        ("the lamp", "the lamp is on", 2 / 3),  # precision 1, recall 1/2
    ],
)
def test_an_answer_scores_by_its_longest_common_subsequence(
    answer: str, reference: str, expected: float
) -> None:
    assert rouge_l([answer], [reference]) == pytest.approx(expected)


def test_several_answers_count_the_same() -> None:
    assert rouge_l(["a b", "x"], ["a b", "y"]) == 0.5
    assert rouge_l([], []) == 0.0


def test_answers_and_references_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="zip"):
        rouge_l(["a"], [])
