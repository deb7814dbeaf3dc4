"""Steering by drafts gives what steering token by token gives, whatever is few or slow."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpt.decoding.answer import Patience, Token, decode
from fedpt.decoding.draft_and_verify import DraftAndVerify, Settings
from fedpt.decoding.drafting import Rules, verify
from fedpt.decoding.ports import RowsTold
from fedpt.decoding.sampling import GREEDY, Chooser, Dice, Sampling, unique_ids
from fedpt.errors import TooMuchError
from fedpt.proxy_tuning import Coefficients, Rows, steer_logits
from tests.fakes.scripted_models import END, Only, ScriptedLarge, ScriptedModel, ScriptedText
from tests.unit.fedpt.decoding.test_drafting import drawn

PROMPT = [3, 1, 4]
WEIGHTS = Coefficients(1.0, 0.7, 0.4)
EXPERT, ANTIEXPERT, LARGE = (ScriptedModel(seed) for seed in (1, 2, 3))
NEAR = ScriptedModel(1, spread=2.0)
"""As good as the expert: most drafts are right."""


def steered(
    large: ScriptedLarge,
    *,
    sampling: Sampling = GREEDY,
    count: int = 24,
    settings: Settings | None = None,
    antiexpert: ScriptedText | None = None,
) -> tuple[list[int], DraftAndVerify]:
    ticks = itertools.count()
    steerer = DraftAndVerify(
        antiexpert or ScriptedText(ANTIEXPERT),
        large,
        settings or Settings(WEIGHTS, candidates=4),
        clock=lambda: next(ticks) * 0.01,
    )
    steps = decode(
        PROMPT,
        expert=ScriptedText(EXPERT),
        steerer=steerer,
        rules=Rules(lambda token: token == END, count, sampling),
        patience=Patience(lambda: 0.0, 1.0),
    )
    return [step.id for step in steps if isinstance(step, Token)], steerer


def one_by_one(large: ScriptedModel, sampling: Sampling = GREEDY, count: int = 24) -> list[int]:
    """The definition: a draft a position, judged by whole rows."""
    tokens, dice = list(PROMPT), Dice(sampling.seed)
    for _ in range(count):
        expert, antiexpert = EXPERT.row(tokens), ANTIEXPERT.row(tokens)
        logits = steer_logits(Rows(large.row(tokens), expert, antiexpert), WEIGHTS)
        penalises = sampling.repetition_penalty != 1
        chooser = Chooser(sampling, unique_ids(tokens if penalises else []), None)
        if sampling.is_greedy:
            tokens.append(int(chooser.distribution(logits).ids[0]))
            continue
        assert dice.at(len(tokens))
        draft = drawn(chooser.distribution(expert), sampling.seed, len(tokens))
        tokens.append(verify(draft, chooser.distribution(logits)))
    return tokens[len(PROMPT) :]


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    top_k=st.sampled_from([0, 5]),
    top_p=st.sampled_from([0.8, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    seed=st.integers(1, 1000),
)


@given(samplings, st.integers(1, 9), st.integers(0, 12), st.sampled_from([NEAR, LARGE]))
def test_tokens_do_not_depend_on_how_drafts_are_cut(
    sampling: Sampling, most_rows: int, looks: int, model: ScriptedModel
) -> None:
    large = ScriptedLarge(model)
    large.looks = looks
    tokens, _ = steered(
        large, sampling=sampling, settings=Settings(WEIGHTS, candidates=4, most_rows=most_rows)
    )
    assert tokens == one_by_one(model, sampling)


@given(st.integers(1, 6), st.integers(0, 6), st.sampled_from([NEAR, LARGE]))
def test_greedy_tokens_by_few_logits_are_those_of_whole_rows(
    few: int, candidates: int, model: ScriptedModel
) -> None:
    settings = Settings(WEIGHTS, candidates=candidates)
    tokens, steerer = steered(ScriptedLarge(model, few=few), settings=settings)
    assert tokens == one_by_one(model)
    assert steerer.tally.largest_doubt == 0


def test_good_drafts_take_few_round_trips_and_no_row_is_computed_twice() -> None:
    large, antiexpert = ScriptedLarge(NEAR), ScriptedText(ANTIEXPERT)
    settings = Settings(Coefficients(1.0, 0.2, 0.05), candidates=4)
    tokens, steerer = steered(large, settings=settings, antiexpert=antiexpert, count=40)
    assert steerer.tally.drafts_right > 35
    assert steerer.tally.round_trips < 15
    assert antiexpert.calls <= 2 * steerer.tally.round_trips
    assert len(tokens) == 40


def test_without_an_antiexperts_weight_it_is_not_run() -> None:
    antiexpert = ScriptedText(ANTIEXPERT)
    steered(ScriptedLarge(LARGE), settings=Settings(Coefficients(1, 0.5, 0)), antiexpert=antiexpert)
    assert antiexpert.calls == 0


def test_where_few_logits_leave_a_doubt_more_are_asked_for() -> None:
    large = ScriptedLarge(LARGE, few=1)
    _, steerer = steered(large, settings=Settings(WEIGHTS, candidates=0))
    again = [one for one in large.asked if one.detail != "few"]
    assert again
    assert all(one.rows == 1 for one in again)
    assert steerer.tally.certain_at_once < steerer.tally.rows


class Stingy(ScriptedLarge):
    """Tells few logits, never more."""

    def fetch(self) -> RowsTold:
        if self.asked[-1].detail != "few":
            raise TooMuchError("no more here")
        return super().fetch()


def test_where_no_more_are_to_be_had_it_asks_once_and_tells_the_doubt() -> None:
    large = Stingy(LARGE, few=1)
    tokens, steerer = steered(large, settings=Settings(WEIGHTS, candidates=0))
    assert len(tokens) == 24
    assert steerer.tally.largest_doubt == 1
    assert len([one for one in large.asked if one.detail != "few"]) == 1
    assert steerer.tally.certain_at_once < steerer.tally.rows


def test_sampling_by_few_logits_stays_within_its_tolerance() -> None:
    settings = Settings(WEIGHTS, candidates=4, tolerance=0.05)
    sampling = Sampling(temperature=0.8, seed=3)
    _, steerer = steered(ScriptedLarge(LARGE, few=4), sampling=sampling, settings=settings)
    assert 0 < steerer.tally.largest_doubt <= 0.05


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_end_among_the_drafts_ends_the_answer(temperature: float) -> None:
    ending = ScriptedModel(3, end_after=9)
    tokens, _ = steered(ScriptedLarge(ending), sampling=Sampling(temperature=temperature, seed=1))
    assert tokens[-1] == END
    assert len(tokens) == 9 - len(PROMPT) + 1


def test_steered_samples_are_distributed_as_the_steered_logits() -> None:
    """Chi-square of first tokens over 4,000 seeds; 99.9 % of draws stay below for 7 cells."""
    rows = Rows(LARGE.row(PROMPT), EXPERT.row(PROMPT), ANTIEXPERT.row(PROMPT))
    sampling = Sampling(temperature=1.0, top_k=8)
    true = Chooser(sampling, unique_ids([]), None).distribution(steer_logits(rows, WEIGHTS))
    tokens = []
    for seed in range(1, 4001):
        seeded = Sampling(temperature=1.0, top_k=8, seed=seed)
        tokens += steered(ScriptedLarge(LARGE), sampling=seeded, count=1)[0]
    observed = np.bincount(tokens, minlength=END + 1)[true.ids]
    assert observed.sum() == 4000
    expected = true.probabilities * 4000
    assert (((observed - expected) ** 2) / expected).sum() < 24.3


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_constraint_holds_for_drafts_and_for_what_replaces_them(temperature: float) -> None:
    allowed = np.arange(END + 1) % 5 == 2
    steerer = DraftAndVerify(
        ScriptedText(ANTIEXPERT),
        ScriptedLarge(LARGE, few=2),
        Settings(WEIGHTS, candidates=3),
        clock=lambda: 0.0,
    )
    sampling = Sampling(temperature=temperature, seed=1)
    rules = Rules(lambda token: token == END, 20, sampling, Only(allowed))
    steps = decode(
        PROMPT,
        expert=ScriptedText(EXPERT),
        steerer=steerer,
        rules=rules,
        patience=Patience(lambda: 0.0, 1.0),
    )
    tokens = [step.id for step in steps if isinstance(step, Token)]
    assert len(tokens) == 20
    assert allowed[tokens].all()
