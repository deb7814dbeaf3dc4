"""Conversations that are remembered, on a tiny real model."""

from collections.abc import Iterator

import pytest

from edge_runtime.prompt_cache import PromptCache
from fedpt.drivers.llama import LlamaContext, LlamaModel
from tests.fakes.tiny_federation import TinyFederation

pytestmark = pytest.mark.llama

HOME = [5, 6, 7, 8, 9, 10]
CHAT = [5, 20, 21, 22, 23, 24]
OTHER = [5, 30, 31, 32, 33, 34]


@pytest.fixture
def cache(tiny: TinyFederation) -> Iterator[PromptCache]:
    with (
        LlamaModel(tiny.small) as model,
        LlamaContext(model, tokens=128, sequences=2, threads=1, is_shared=False) as expert,
        LlamaContext(model, tokens=128, sequences=2, threads=1, is_shared=False) as antiexpert,
    ):
        yield PromptCache(expert, antiexpert)


def ask(cache: PromptCache, prompt: list[int]) -> int:
    """How much of the prompt was known; it is read to its end."""
    conversation, held = cache.pick(prompt)
    kept = conversation.expert.begin(prompt[:-1])
    conversation.expert.append(prompt[kept:], 1)
    return held


def test_two_that_ask_by_turns_each_find_their_own(cache: PromptCache) -> None:
    assert ask(cache, HOME) == 0
    assert ask(cache, CHAT) == 0
    assert ask(cache, [*HOME, 11]) == 6
    assert ask(cache, [*CHAT, 25, 26]) == 6
    assert ask(cache, [*HOME, 12]) == 6


def test_a_third_displaces_who_was_not_there_for_longest(cache: PromptCache) -> None:
    for prompt in (HOME, CHAT, OTHER):
        ask(cache, prompt)
    assert ask(cache, [*CHAT, 11]) == 6
    assert ask(cache, [*HOME, 11]) <= 1


def test_the_next_question_after_a_long_beginning_uses_it(cache: PromptCache) -> None:
    ask(cache, [*range(3, 33), 40, 41, 42])
    assert ask(cache, [*range(3, 33), 50]) == 30


def test_the_same_question_again_goes_on_where_it_was(cache: PromptCache) -> None:
    ask(cache, HOME)
    first, _ = cache.pick(HOME)
    ask(cache, CHAT)
    ask(cache, HOME)
    assert cache.pick(HOME)[0] is first
    assert cache.pick(HOME)[0] is first


def test_who_needs_the_models_again_and_again_displaces_one_conversation(
    cache: PromptCache,
) -> None:
    ask(cache, HOME)
    ask(cache, CHAT)
    for text in ([40, 41, 42], [43, 44, 45], [46, 47, 48]):
        spare = cache.spare.expert
        spare.begin(text[:-1])
        spare.append(text, 1)
    assert ask(cache, [*CHAT, 11]) == 6
