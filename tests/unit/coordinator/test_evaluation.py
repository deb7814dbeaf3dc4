"""Scores of tiny models against torch, and against what generating says."""

import msgspec
import numpy as np
import pytest
import torch

from coordinator.evaluation import CALIBRATED, FIXED_WAYS, evaluate, longest_text
from coordinator.state import Evaluation
from coordinator.steered_batch import Trio
from fedpt.chat import EncodedExample
from fedpt.examples import Example
from fedpt.progress import Progress
from fedpt.proxy_tuning import EXPERT_ALONE, PLAIN, Coefficients, steer_logits
from tests.fakes.tiny_federation import EXAMPLES, Reference

pytestmark = pytest.mark.llama

TOKENS = 12


@pytest.fixture(scope="module")
def knowable(trio: Trio, encoded: list[EncodedExample]) -> list[Example]:
    """Examples of which the expert knows the first three exactly: they are its own answers."""
    own = trio.answers([one.prompt for one in encoded], EXPERT_ALONE, max_tokens=8)
    known = [
        Example(example.prompt, trio.small.text(tokens), example.system)
        for example, tokens in zip(EXAMPLES, own, strict=True)
    ]
    return [*known[:3], *EXAMPLES[3:]]


@pytest.fixture(scope="module")
def evaluation(trio: Trio) -> Evaluation:
    return evaluate(trio, EXAMPLES, answer_tokens=TOKENS)


def test_all_ways_stand_side_by_side(evaluation: Evaluation) -> None:
    ways = ["large", "antiexpert", "expert", "steered", "steered_calibrated"]
    assert list(evaluation.scores) == ways
    assert {name: len(texts) for name, texts in evaluation.answers.items()} == dict.fromkeys(
        ways, len(EXAMPLES)
    )


def test_the_nll_is_that_of_torch(
    evaluation: Evaluation, encoded: list[EncodedExample], reference: Reference
) -> None:
    for name, way in FIXED_WAYS.items():
        losses = []
        for one in encoded:
            rows = steer_logits(reference.rows([*one.prompt, *one.answer]), way)
            logits = torch.from_numpy(rows[len(one.prompt) - 1 : -1])
            losses.append(torch.nn.functional.cross_entropy(
                logits, torch.tensor(one.answer), reduction="none"))  # fmt: skip
        expected = torch.cat(losses).mean().item()
        assert evaluation.scores[name].nll == pytest.approx(expected, abs=0.01)  # f16 cache


def test_the_calibrated_way_is_never_worse_than_the_expert_or_plain_steering(
    evaluation: Evaluation,
) -> None:
    scores = evaluation.scores
    assert scores[CALIBRATED].nll <= min(scores["expert"].nll, scores["steered"].nll)


def test_the_entropy_is_that_of_the_plain_steered_distribution(
    evaluation: Evaluation, encoded: list[EncodedExample], reference: Reference
) -> None:
    means = []
    for one in encoded:
        rows = steer_logits(reference.rows([*one.prompt, *one.answer]), PLAIN)
        logits = torch.from_numpy(rows[len(one.prompt) - 1 : -1])
        means.append(torch.distributions.Categorical(logits=logits).entropy().mean().item())
    assert evaluation.steered_entropy == pytest.approx(np.mean(means), abs=0.02)  # f16 cache


def test_an_exact_match_by_teacher_forcing_is_one_by_generating(
    trio: Trio, encoded: list[EncodedExample]
) -> None:
    """References are greedy answers themselves: some whole, one with a token changed."""
    prompts = [one.prompt for one in encoded]
    own = trio.answers(prompts, EXPERT_ALONE, max_tokens=8)
    own[1][3] += 1
    references = [
        EncodedExample(prompt, tuple(answer)) for prompt, answer in zip(prompts, own, strict=True)
    ]
    forced = [
        bool((steer_logits(rows, EXPERT_ALONE).argmax(axis=-1) == one.answer).all())
        for one, rows in zip(references, trio.answer_rows(references), strict=True)
    ]
    generated = trio.answers(prompts, EXPERT_ALONE, max_tokens=8)
    assert forced == [answer == list(one.answer) for answer, one in zip(
        generated, references, strict=True)]  # fmt: skip
    assert forced == [True, False, True, True, True]


def test_a_text_that_the_expert_writes_itself_scores_high(
    trio: Trio, knowable: list[Example]
) -> None:
    scores = evaluate(trio, knowable, answer_tokens=8).scores
    assert scores["expert"].rouge_l > 0.5 > scores["antiexpert"].rouge_l


def test_progress_ends_with_the_whole(trio: Trio) -> None:
    told: list[Progress] = []
    evaluate(trio, EXAMPLES[:1], answer_tokens=2, on_progress=told.append)
    assert told == [Progress(1, 2), Progress(2, 2)]


def test_an_evaluation_survives_its_result_file(evaluation: Evaluation) -> None:
    again = msgspec.json.decode(msgspec.json.encode(evaluation), type=Evaluation)
    assert again == evaluation
    assert Coefficients(*msgspec.structs.astuple(again.coefficients)).alpha == 1.0


def test_the_room_holds_reference_and_answer() -> None:
    texts = [EncodedExample((1,) * 10, (2,) * 3), EncodedExample((1,) * 4, (2,) * 20)]
    assert longest_text(texts, answer_tokens=5) == 24
    assert longest_text(texts, answer_tokens=48) == 58
