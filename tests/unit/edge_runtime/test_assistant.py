"""Answers of tiny real models, judged token by token by transformers."""

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from edge_runtime.assistant import AnswerSummary, Assistant, Question
from edge_runtime.generation import LargeModel
from edge_runtime.settings import AssistantSettings
from fedpt.chat import encode_prompt
from fedpt.drivers.llama import CachedSequence, LlamaContext, LlamaModel
from fedpt.errors import AdapterError, LargeModelError, UsageError
from fedpt.proxy_tuning import EXPERT_ALONE, Coefficients, Logits, Rows, steer_logits
from tests.fakes.tiny_federation import Reference, TinyFederation

pytestmark = pytest.mark.llama

SETTINGS = AssistantSettings(context_tokens=128, answer_tokens=12, threads=1)
TEXT = "Turn on the lamp"
WEIGHTS = Coefficients(1.0, 0.7, 0.4)


class NearLarge:
    """The large model in this process; fails after some answers."""

    def __init__(self, sequence: CachedSequence, answers: int = 1000) -> None:
        self._sequence, self._left = sequence, answers
        self._tokens: list[int] = []

    def ask(self, tokens: Sequence[int]) -> None:
        self._tokens = list(tokens)

    def fetch(self) -> Logits:
        self._left -= 1
        if self._left < 0:
            raise LargeModelError("the line is cut")
        return self._sequence.logits_after(self._tokens)


class Spelling:
    """A large model that wants one text, byte by byte, and nothing else."""

    def __init__(self, model: LlamaModel, tokens: list[int]) -> None:
        self._size, self._left = model.vocabulary_size, iter([*tokens, model.end_token])

    def ask(self, tokens: Sequence[int]) -> None:
        pass

    def fetch(self) -> Logits:
        row = np.zeros(self._size, np.float32)
        row[next(self._left)] = 1e6
        return row


@pytest.fixture(scope="module")
def model(tiny: TinyFederation) -> Iterator[LlamaModel]:
    with LlamaModel(tiny.small) as one:
        yield one


@pytest.fixture(scope="module")
def large(tiny: TinyFederation) -> Iterator[CachedSequence]:
    with LlamaModel(tiny.large) as one, LlamaContext(one, tokens=256, threads=1) as context:
        yield CachedSequence(context)


@pytest.fixture(scope="module")
def reference(tiny: TinyFederation) -> Reference:
    return Reference(tiny)


Make = Callable[[Callable[[], LargeModel] | None], Assistant]


@pytest.fixture
def make(model: LlamaModel, tiny: TinyFederation) -> Iterator[Make]:
    """Make assistants with the tiny adapter; they are closed afterwards."""
    made = []

    def one(make_large: Callable[[], LargeModel] | None = None) -> Assistant:
        assistant = Assistant(model, SETTINGS, make_large=make_large)
        assistant.switch("tiny", tiny.adapter_gguf)
        made.append(assistant)
        return assistant

    yield one
    for assistant in made:
        assistant.close()


def summary(assistant: Assistant, question: Question) -> AnswerSummary:
    *pieces, last = assistant.answer(question)
    assert isinstance(last, AnswerSummary)
    assert "".join(map(str, pieces)) == last.text
    return last


@pytest.fixture(scope="module")
def small_pair(model: LlamaModel, tiny: TinyFederation) -> Iterator[list[CachedSequence]]:
    """Expert and antiexpert."""
    with (
        LlamaContext(model, tokens=256, threads=1, adapter=tiny.adapter_gguf) as expert,
        LlamaContext(model, tokens=256, threads=1) as antiexpert,
    ):
        yield [CachedSequence(expert), CachedSequence(antiexpert)]


def greedy_tokens(
    model: LlamaModel, sequences: Sequence[CachedSequence], weights: Coefficients
) -> list[int]:
    """Twelve tokens, by a straightforward loop."""
    tokens = list(encode_prompt(model, TEXT))
    for _ in range(12):
        rows = Rows(*(sequence.logits_after(tokens) for sequence in sequences))
        tokens.append(int(steer_logits(rows, weights).argmax()))
    return tokens[-12:]


def test_a_local_answer_is_the_experts_own(
    make: Make, model: LlamaModel, small_pair: list[CachedSequence], reference: Reference
) -> None:
    tokens = greedy_tokens(model, [small_pair[0], *small_pair], EXPERT_ALONE)
    answer = summary(make(None), Question(TEXT, "local"))
    assert reference.is_greedy(encode_prompt(model, TEXT), tokens, EXPERT_ALONE)
    assert answer.text == model.text(tokens)
    assert (answer.tokens, answer.steered_tokens, answer.ended) == (12, 0, "length")
    assert answer.adapter == "tiny"


# models, assistant and judge
def test_a_steered_answer_is_that_of_the_combined_logits(  # noqa: PLR0917
    make: Make,
    model: LlamaModel,
    large: CachedSequence,
    small_pair: list[CachedSequence],
    reference: Reference,
) -> None:
    tokens = greedy_tokens(model, [large, *small_pair], WEIGHTS)
    assistant = make(lambda: NearLarge(large))
    assistant.coefficients = WEIGHTS
    answer = summary(assistant, Question(TEXT, "steered"))
    assert (answer.steered_tokens, answer.fallback, answer.coefficients) == (12, "", WEIGHTS)
    assert answer.text == model.text(tokens)
    assert reference.is_greedy(encode_prompt(model, TEXT), tokens, WEIGHTS)


def test_a_lost_large_model_is_told_and_costs_no_token(make: Make, large: CachedSequence) -> None:
    answer = summary(make(lambda: NearLarge(large, answers=4)), Question(TEXT, "steered"))
    assert (answer.tokens, answer.steered_tokens) == (12, 4)
    assert answer.fallback == "the line is cut"


def test_without_a_large_model_a_steered_question_is_answered_alone(make: Make) -> None:
    assistant = make(None)
    alone = summary(assistant, Question(TEXT, "steered"))
    assert alone.fallback == "this assistant has no large model to ask"
    assert alone.text == summary(assistant, Question(TEXT, "local")).text


def test_characters_split_over_tokens_come_out_whole(make: Make, model: LlamaModel) -> None:
    tokens = [token for byte in "é→🏠" for token in _byte_tokens(model, byte)]
    assert len(tokens) > 3
    assistant = make(lambda: Spelling(model, tokens))
    *pieces, last = assistant.answer(Question(TEXT, "steered"))
    assert [piece for piece in pieces if piece] == ["é", "→", "🏠"]
    assert isinstance(last, AnswerSummary)
    assert (last.text, last.ended, last.tokens) == ("é→🏠", "complete", len(tokens))


def _byte_tokens(model: LlamaModel, character: str) -> list[int]:
    by_bytes = {model.piece(token): token for token in range(model.vocabulary_size)}
    return [by_bytes[bytes([byte])] for byte in character.encode()]


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_question_is_refused(make: Make, text: str) -> None:
    with pytest.raises(UsageError, match="the question is empty"):
        list(make(None).answer(Question(text, "local")))


def test_a_question_that_is_too_long_is_refused_and_the_next_one_answered(make: Make) -> None:
    assistant = make(None)
    with pytest.raises(UsageError, match=r"the question is \d+ tokens; the context holds 128"):
        list(assistant.answer(Question("?! " * 100, "local")))
    assert summary(assistant, Question(TEXT, "local")).tokens == 12


def test_an_answer_ends_where_the_context_does(make: Make) -> None:
    answer = summary(make(None), Question(TEXT, "local", max_tokens=10_000))
    assert answer.prompt_tokens + answer.tokens <= 128
    assert answer.ended in ("length", "complete")


def test_a_running_answer_keeps_its_adapter_when_another_is_switched_to(
    make: Make, tiny: TinyFederation
) -> None:
    assistant = make(None)
    expected = summary(assistant, Question(TEXT, "local")).text
    steps = assistant.answer(Question(TEXT, "local"))
    first = next(steps)
    switch = threading.Thread(target=assistant.switch, args=("newer", tiny.adapter_gguf))
    switch.start()
    *pieces, last = steps
    switch.join()
    assert isinstance(last, AnswerSummary)
    assert (last.adapter, str(first) + "".join(map(str, pieces))) == ("tiny", expected)
    assert assistant.adapter == "newer"


def test_an_abandoned_answer_does_not_block_the_next(make: Make) -> None:
    assistant = make(None)
    next(assistant.answer(Question(TEXT, "local")))
    assert summary(assistant, Question(TEXT, "local")).tokens == 12


def test_a_damaged_adapter_leaves_the_old_one_in_use(make: Make, tiny: TinyFederation) -> None:
    damaged = tiny.folder / "damaged.gguf"
    damaged.write_bytes(tiny.adapter_gguf.read_bytes()[:200])
    assistant = make(None)
    with pytest.raises(AdapterError):
        assistant.switch("damaged", damaged)
    assert summary(assistant, Question(TEXT, "local")).adapter == "tiny"


def test_a_running_answer_puts_a_switch_off(
    make: Make, tiny: TinyFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.assistant._SWITCH_WAIT_S", 0.01)
    assistant = make(None)
    answer = assistant.answer(Question(TEXT, "local"))
    next(answer)
    assert not assistant.switch("other", tiny.adapter_gguf)
    assert assistant.adapter == "tiny"
    list(answer)
    assert assistant.switch("other", tiny.adapter_gguf)
    assert assistant.adapter == "other"


def test_how_long_a_step_takes_can_be_seen_and_a_reader_that_dawdles_is_not_a_step(
    make: Make, model: LlamaModel
) -> None:
    seen: list[float] = []

    class Watched(Spelling):
        def fetch(self) -> Logits:
            seen.append(assistant.step_s)
            return super().fetch()

    assistant = make(lambda: Watched(model, [40, 41]))
    answer = assistant.answer(Question(TEXT, "steered"))
    next(answer)
    assert assistant.step_s == 0.0  # the answer waits for its reader
    list(answer)
    assert all(one > 0 for one in seen)
    assert len(seen) == 3
    assert assistant.step_s == 0.0
