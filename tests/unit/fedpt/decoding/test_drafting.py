"""Drafts, and the rule that makes true tokens of them."""

import numpy as np
import pytest

from fedpt.decoding.drafting import Draft, Drafter, Rules, verify
from fedpt.decoding.sampling import Chooser, Dice, Distribution, Sampling, unique_ids
from tests.fakes.scripted_models import END, ScriptedModel, ScriptedText

RULES = Rules(lambda token: token == END, 100)


def drafter(text: ScriptedText, rules: Rules = RULES) -> Drafter:
    return Drafter([3, 1, 4], text, rules)


def greedy(tokens: list[int], count: int, seed: int = 1) -> list[int]:
    tokens = list(tokens)
    for _ in range(count):
        tokens.append(int(ScriptedModel(seed).row(tokens).argmax()))
    return tokens[-count:]


def test_drafts_are_the_experts_own_tokens() -> None:
    one = drafter(ScriptedText(ScriptedModel(1)))
    assert [one.extend().token for _ in range(5)] == greedy([3, 1, 4], 5)


def test_every_token_goes_through_the_expert_once() -> None:
    text = ScriptedText(ScriptedModel(1))
    one = drafter(text)
    for _ in range(4):
        one.extend()
    for _ in range(3):
        one.accept()
    one.extend()
    assert text.computed == 3 + 4
    assert text.tokens == one.tokens(len(one.drafts) - 1)


def test_after_a_replacement_the_expert_goes_on_from_there() -> None:
    text = ScriptedText(ScriptedModel(1))
    one = drafter(text)
    for _ in range(4):
        one.extend()
    one.accept()
    one.replace(17)
    expected = greedy(one.text, 2)
    assert [one.extend().token for _ in range(2)] == expected
    assert text.tokens == one.tokens(1)
    assert text.computed == 3 + 3 + 2


def test_tokens_from_elsewhere_are_read_when_the_expert_is_asked_again() -> None:
    text = ScriptedText(ScriptedModel(1))
    one = drafter(text)
    for token in (9, 8, 7):
        one.replace(token)
    assert text.computed == 0
    assert one.extend().token == greedy([3, 1, 4, 9, 8, 7], 1)[0]


def test_a_text_that_was_read_before_is_not_read_again() -> None:
    text = ScriptedText(ScriptedModel(1))
    drafter(text).extend()
    before = text.computed
    Drafter([3, 1, 4, 1], text, RULES).extend()
    assert text.computed == before + 1


def test_an_end_is_known() -> None:
    one = drafter(ScriptedText(ScriptedModel(1, end_after=4)))
    assert not one.extend().is_end
    assert one.extend().is_end
    assert one.is_at_end


class Alternating:
    """A constraint: odd tokens and even ones by turns."""

    def __init__(self, parity: int) -> None:
        self._parity = parity

    def allows(self, ids: np.ndarray) -> np.ndarray:
        return ids % 2 == self._parity

    def allowed(self) -> np.ndarray:
        return np.arange(END + 1) % 2 == self._parity

    def after(self, token: int) -> "Alternating":
        assert token % 2 == self._parity
        return Alternating(1 - self._parity)


def test_drafts_keep_to_a_constraint_also_after_a_replacement() -> None:
    rules = Rules(lambda token: token == END, 100, constraint=Alternating(1))
    one = drafter(ScriptedText(ScriptedModel(1)), rules)
    assert [one.extend().token % 2 for _ in range(4)] == [1, 0, 1, 0]
    one.accept()
    one.replace(8)
    assert [one.extend().token % 2 for _ in range(3)] == [1, 0, 1]


P = Distribution(np.array([0, 2, 3, 5]), np.array([0.1, 0.4, 0.3, 0.2]))
Q = Distribution(np.array([1, 2, 3, 5]), np.array([0.3, 0.1, 0.5, 0.1]))


def drawn(q: Distribution, seed: int, position: int) -> Draft:
    draw_at, accept_at, replace_at = Dice(seed).at(position)
    chooser = Chooser(Sampling(temperature=1.0), unique_ids([]), None)
    row = np.zeros(6, np.float32)
    return Draft(q.draw(draw_at), False, q, row, chooser, accept_at, replace_at)


def test_verified_tokens_are_distributed_as_if_drawn_from_the_true_distribution() -> None:
    """Chi-square over 40,000 draws; 3 degrees of freedom, so 16.3 is passed once in a thousand."""
    count = 40_000
    tokens = [verify(drawn(Q, 7, position), P) for position in range(count)]
    observed = np.bincount(tokens, minlength=6)
    assert observed[[1, 4]].sum() == 0
    expected = P.probabilities * count
    assert (((observed[P.ids] - expected) ** 2) / expected).sum() < 16.3


def test_a_draft_from_the_true_distribution_is_always_right() -> None:
    drafts = [drawn(P, 1, position) for position in range(200)]
    assert all(verify(draft, P) == draft.token for draft in drafts)


@pytest.mark.parametrize(("wanted", "kept"), [(2, True), (4, False)])
def test_a_greedy_draft_is_kept_if_it_is_the_true_choice(wanted: int, *, kept: bool) -> None:
    certain = np.ones(1)
    draft = drawn(Distribution(np.array([2]), certain), 1, 1)
    assert (verify(draft, Distribution(np.array([wanted]), certain)) == draft.token) is kept
    assert verify(draft, Distribution(np.array([wanted]), certain)) == wanted
