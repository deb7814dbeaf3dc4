"""The distillation loss by its definition, and that a tiny model learns by it."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coordinator.distillation import distil, divergence
from coordinator.lessons import Lesson, make_lessons
from coordinator.settings import DistillationSettings
from coordinator.steered_batch import Trio
from fedpt.adapters import require_averageable
from fedpt.chat import EncodedExample
from fedpt.errors import TrainingError
from fedpt.proxy_tuning import PLAIN, Logits, log_softmax
from tests.fakes.quiet_torch import quiet_torch
from tests.fakes.tiny_federation import TinyFederation

POSITIONS, VOCABULARY, KEPT = 4, 30, 6
SETTINGS = DistillationSettings(epochs=4, learning_rate=1e-2, batch_examples=2)


def random_logits(seed: int, spread: float = 2.0) -> Logits:
    rng = np.random.default_rng(seed)
    return (spread * rng.normal(size=(POSITIONS, VOCABULARY))).astype(np.float32)


def lesson(teacher: Logits) -> Lesson:
    tokens = np.argsort(-teacher, axis=1)[:, :KEPT]
    values = np.take_along_axis(log_softmax(teacher), tokens, axis=1)
    return Lesson(EncodedExample((1,), tuple(map(int, tokens[:, 0]))), tokens, values)


def full_divergence(teacher: Logits, student: Logits) -> float:
    taught, learnt = (
        torch.log_softmax(torch.from_numpy(x).double(), -1) for x in (teacher, student)
    )
    return torch.nn.functional.kl_div(learnt, taught, reduction="batchmean", log_target=True).item()


@pytest.fixture
def quiet() -> Iterator[None]:
    with quiet_torch():
        yield


def test_equal_distributions_do_not_diverge() -> None:
    teacher = random_logits(1)
    loss = divergence(torch.from_numpy(teacher + 5), [lesson(teacher)])  # a constant cancels
    assert loss.item() == pytest.approx(0, abs=1e-5)  # float32


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0.1, 5))
def test_it_is_a_lower_bound_of_the_full_divergence(first: int, second: int, spread: float) -> None:
    teacher, student = random_logits(first, spread), random_logits(second, spread)
    ours = divergence(torch.from_numpy(student), [lesson(teacher)]).item()
    assert -1e-4 <= ours <= full_divergence(teacher, student) + 1e-4  # float32, and the least tail


def test_it_is_the_full_divergence_when_all_others_are_one_token() -> None:
    teacher, student = random_logits(1)[:, : KEPT + 1], random_logits(2)[:, : KEPT + 1]
    ours = divergence(torch.from_numpy(student), [lesson(teacher)]).item()
    assert ours == pytest.approx(full_divergence(teacher, student), rel=1e-4)  # float32


@pytest.mark.parametrize("spread", [0.0, 1.0, 100.0, 10_000.0])
def test_the_gradient_is_finite_also_where_no_mass_is_left_for_the_others(spread: float) -> None:
    student = torch.from_numpy(random_logits(2, spread)).requires_grad_()
    loss = divergence(student, [lesson(random_logits(1, spread))])
    loss.backward()
    assert torch.isfinite(loss)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_several_lessons_count_by_their_positions() -> None:
    teacher, student = random_logits(1), torch.from_numpy(random_logits(2))
    whole = lesson(teacher)
    parts = [
        replace(whole, tokens=whole.tokens[part], log_probabilities=whole.log_probabilities[part])
        for part in (slice(1), slice(1, None))
    ]
    assert divergence(student, parts).item() == pytest.approx(divergence(student, [whole]).item())


@pytest.mark.llama
@pytest.mark.usefixtures("quiet")
def test_a_tiny_model_learns_its_lessons_the_same_every_time(
    tiny: TinyFederation, trio: Trio, encoded: list[EncodedExample]
) -> None:
    lessons = make_lessons(trio, [one.prompt for one in encoded], PLAIN, answer_tokens=6)
    steps: list[tuple[int, int]] = []
    once = SETTINGS.model_copy(update={"epochs": 1})
    first = distil(tiny.small, tiny.adapter, lessons, once, seed=1)
    later = distil(
        tiny.small, tiny.adapter, lessons, SETTINGS, seed=1, on_progress=lambda *s: steps.append(s)
    )
    again = distil(tiny.small, tiny.adapter, lessons, SETTINGS, seed=1)
    assert 0 < later.loss < 0.9 * first.loss
    assert later.loss == again.loss
    assert steps == [(done, 12) for done in range(1, 13)]
    require_averageable(later.adapter, tiny.adapter)
    assert later.adapter.manifest == tiny.adapter.manifest


@pytest.mark.llama
@pytest.mark.usefixtures("quiet")
def test_a_loss_that_is_not_finite_is_an_error(
    tiny: TinyFederation, trio: Trio, encoded: list[EncodedExample]
) -> None:
    (good,) = make_lessons(trio, [encoded[0].prompt], PLAIN, answer_tokens=3)
    bad = replace(good, log_probabilities=np.full_like(good.log_probabilities, np.nan))
    with pytest.raises(TrainingError, match="the distillation loss is nan at step 1"):
        distil(tiny.small, tiny.adapter, [bad], SETTINGS, seed=1)
