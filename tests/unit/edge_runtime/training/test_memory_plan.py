"""Which way is chosen for a budget."""

from dataclasses import replace

import pytest

from edge_runtime.training.memory_plan import MEGABYTE, Sizes, choose, estimate, smallest_budget
from fedpt.errors import TrainingError

# SmolLM2-135M, rank 8, batches of 4 x 256
SMALL = Sizes(
    layers=30, hidden=576, inner=1536, queries=576, layer_numbers=3_538_944,
    trained_numbers=2_442_240, longest=256, batch_tokens=1024,
)  # fmt: skip
THERE = 335 * MEGABYTE


def test_much_memory_buys_speed() -> None:
    how = choose(SMALL, 4000 * MEGABYTE, THERE)
    assert (how.mode, how.recompute, how.thrifty) == ("expanded", False, False)


def test_less_memory_keeps_less() -> None:
    ways = [choose(SMALL, budget * MEGABYTE, THERE) for budget in (2500, 1200, 700, 550)]
    needs = [estimate(SMALL, way) for way in ways]
    assert needs == sorted(needs, reverse=True)
    assert (ways[-1].mode, ways[-1].recompute) == ("mapped", True)


@pytest.mark.parametrize("budget", range(480, 3000, 140))
def test_what_is_chosen_is_estimated_to_fit(budget: int) -> None:
    room = budget * MEGABYTE
    assert THERE + estimate(SMALL, choose(SMALL, room, THERE)) <= room


def test_a_proximal_term_keeps_the_start_too() -> None:
    way = choose(SMALL, 1200 * MEGABYTE, THERE)
    held = replace(SMALL, start_numbers=SMALL.trained_numbers)
    more = estimate(held, way) - estimate(SMALL, way)
    assert 4 * SMALL.trained_numbers <= more <= 5 * SMALL.trained_numbers


def test_examples_are_cut_only_if_nothing_else_helps() -> None:
    long = replace(SMALL, longest=2048, batch_tokens=8192)
    assert choose(long, 1200 * MEGABYTE, THERE).context_tokens == 2048
    assert choose(long, 520 * MEGABYTE, THERE).context_tokens < 2048


def test_too_small_a_budget_is_refused_with_one_that_would_do() -> None:
    least = smallest_budget(SMALL, THERE)
    message = (
        f"as little as 300 MB; the smallest memory budget that would do is {least // MEGABYTE} MB"
    )
    with pytest.raises(TrainingError, match=message):
        choose(SMALL, 300 * MEGABYTE, THERE)
    choose(SMALL, least, THERE)


def test_a_mode_that_was_asked_for_is_kept_to() -> None:
    assert choose(SMALL, 4000 * MEGABYTE, THERE, mode="mapped").mode == "mapped"


def test_short_examples_are_never_padded_to_a_least_context() -> None:
    short = replace(SMALL, longest=20, batch_tokens=80)
    assert choose(short, 700 * MEGABYTE, THERE).context_tokens == 20
