"""Answers of tiny real models, judged token by token by transformers."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from edge_runtime.assistant import Assistant
from edge_runtime.drivers.local_large import LocalLarge
from edge_runtime.question import (
    AnswerSummary,
    Mode,
    Notice,
    Piece,
    Question,
    user_question,
)
from edge_runtime.settings import AssistantSettings
from edge_runtime.steering import LargeAccess, Traffic
from fedpt.chat import ChatMessage, encode_prompt
from fedpt.decoding.large_row import full_row
from fedpt.decoding.ports import LargeModel, RowsTold, RowsWanted
from fedpt.decoding.sampling import Sampling
from fedpt.drivers.llama import CachedText, LlamaContext, LlamaModel
from fedpt.errors import AdapterError, LargeModelError, UsageError
from fedpt.proxy_tuning import EXPERT_ALONE, Coefficients, Rows, steer_logits
from tests.fakes.tiny_federation import Reference, TinyFederation

pytestmark = pytest.mark.llama

SETTINGS = AssistantSettings(context_tokens=128, answer_tokens=12, threads=1)
TEXT = "Turn on the lamp"
WEIGHTS = Coefficients(1.0, 0.7, 0.4)


class Failing:
    """A large model that answers some times and then never again."""

    def __init__(self, large: LargeModel, answers: int) -> None:
        self._large, self._left = large, answers

    def ask(self, question: RowsWanted) -> None:
        self._large.ask(question)

    def is_there(self) -> bool:
        return True

    def fetch(self) -> RowsTold:
        self._left -= 1
        if self._left < 0:
            raise LargeModelError("the line is cut")
        return self._large.fetch()

    def is_back(self, _tokens: Sequence[int]) -> bool:
        return False


class Spelling(Failing):
    """A large model that wants one text, token by token, and nothing else."""

    def __init__(self, model: LlamaModel, prompt: int, tokens: list[int]) -> None:
        self._size, self._prompt = model.vocabulary_size, prompt
        self._tokens = [*tokens, model.end_token]

    def ask(self, question: RowsWanted) -> None:
        self._first = len(question.tokens) - question.rows + 1 - self._prompt
        self._rows = question.rows

    def fetch(self) -> RowsTold:
        rows = np.zeros((self._rows, self._size), np.float32)
        for offset, row in enumerate(rows):
            row[self._tokens[min(self._first + offset, len(self._tokens) - 1)]] = 1e6
        return RowsTold([full_row(row) for row in rows], 0.0, 0.0)


@pytest.fixture(scope="module")
def model(tiny: TinyFederation) -> Iterator[LlamaModel]:
    with LlamaModel(tiny.small) as one:
        yield one


@pytest.fixture(scope="module")
def large_text(tiny: TinyFederation) -> Iterator[CachedText]:
    with LlamaModel(tiny.large) as one, LlamaContext(one, tokens=256, threads=1) as context:
        yield CachedText(context)


@pytest.fixture
def large(large_text: CachedText) -> LargeModel:
    return LocalLarge(large_text, clock=time.monotonic)


@pytest.fixture(scope="module")
def reference(tiny: TinyFederation) -> Reference:
    return Reference(tiny)


Make = Callable[..., Assistant]


@pytest.fixture
def make(model: LlamaModel, tiny: TinyFederation) -> Iterator[Make]:
    """Make assistants with the tiny adapter; they are closed afterwards."""
    made = []

    def one(large: LargeModel | None = None, settings: AssistantSettings = SETTINGS) -> Assistant:
        access = None if large is None else LargeAccess(large, Traffic())
        assistant = Assistant(model, settings, large=access)
        assistant.switch("tiny", tiny.adapter_gguf)
        assistant.coefficients = WEIGHTS
        made.append(assistant)
        return assistant

    yield one
    for assistant in made:
        assistant.close()


def summary(assistant: Assistant, question: Question) -> AnswerSummary:
    *items, last = assistant.answer(question)
    assert isinstance(last, AnswerSummary)
    assert text_of(items) == last.text
    return last


def text_of(items: Iterable[Piece | Notice | AnswerSummary]) -> str:
    return "".join(item.text for item in items if isinstance(item, Piece))


@pytest.fixture(scope="module")
def small_pair(model: LlamaModel, tiny: TinyFederation) -> Iterator[list[CachedText]]:
    """Expert and antiexpert."""
    with (
        LlamaContext(model, tokens=256, threads=1, adapter=tiny.adapter_gguf) as expert,
        LlamaContext(model, tokens=256, threads=1) as antiexpert,
    ):
        yield [CachedText(expert), CachedText(antiexpert)]


def greedy_tokens(
    model: LlamaModel, texts: Sequence[CachedText], weights: Coefficients
) -> list[int]:
    """Twelve tokens, by a straightforward loop."""
    tokens = list(encode_prompt(model, TEXT))
    for text in texts:
        text.rewind(0)
    for _ in range(12):
        rows = Rows(*(text.append(tokens[len(text.tokens) :], 1)[0] for text in texts))
        tokens.append(int(steer_logits(rows, weights).argmax()))
    return tokens[-12:]


def test_a_local_answer_is_the_experts_own(
    make: Make, model: LlamaModel, small_pair: list[CachedText], reference: Reference
) -> None:
    expert, tokens = small_pair[0], list(encode_prompt(model, TEXT))
    expert.rewind(0)
    for _ in range(12):
        tokens.append(int(expert.append(tokens[len(expert.tokens) :], 1)[0].argmax()))
    answer = summary(make(), user_question(TEXT))
    assert answer.text == model.text(tokens[-12:])
    assert reference.is_greedy(encode_prompt(model, TEXT), tokens[-12:], EXPERT_ALONE)
    assert (answer.tokens, answer.steered_tokens, answer.ended) == (12, 0, "length")
    assert (answer.adapter, answer.steps) == ("tiny", None)


# models, assistant and judge
def test_a_steered_answer_is_that_of_the_combined_logits(  # noqa: PLR0917
    make: Make,
    model: LlamaModel,
    large: LargeModel,
    large_text: CachedText,
    small_pair: list[CachedText],
    reference: Reference,
) -> None:
    answer = summary(make(large), user_question(TEXT, "steered"))
    assert (answer.steered_tokens, answer.fallback, answer.coefficients) == (12, "", WEIGHTS)
    tokens = greedy_tokens(model, [large_text, *small_pair], WEIGHTS)
    assert answer.text == model.text(tokens)
    assert reference.is_greedy(encode_prompt(model, TEXT), tokens, WEIGHTS)
    assert answer.steps is not None
    assert (answer.steps.where, answer.steps.drafts) == ("logits", 12)
    assert 0 < answer.steps.round_trips <= 12


def test_a_lost_large_model_is_told_and_costs_no_token(make: Make, large: LargeModel) -> None:
    settings = AssistantSettings(context_tokens=128, answer_tokens=12, threads=1, draft_tokens=1)
    items = list(make(Failing(large, 4), settings).answer(user_question(TEXT, "steered")))
    answer = items[-1]
    assert isinstance(answer, AnswerSummary)
    assert (answer.tokens, answer.steered_tokens) == (12, 4)
    assert answer.fallback == "the line is cut"
    assert [item for item in items if isinstance(item, Notice)] == [
        Notice(False, "the line is cut")
    ]


def test_without_a_large_model_a_steered_question_is_answered_alone(make: Make) -> None:
    assistant = make()
    alone = summary(assistant, user_question(TEXT, "steered"))
    assert alone.fallback == "this assistant has no large model to ask"
    assert alone.text == summary(assistant, user_question(TEXT)).text


def spelling(model: LlamaModel, tokens: list[int]) -> Spelling:
    return Spelling(model, len(encode_prompt(model, TEXT)), tokens)


def test_characters_split_over_tokens_come_out_whole(make: Make, model: LlamaModel) -> None:
    tokens = [token for byte in "é→🏠" for token in _byte_tokens(model, byte)]
    assert len(tokens) > 3
    assistant = make(spelling(model, tokens))
    *pieces, last = assistant.answer(user_question(TEXT, "steered"))
    assert [piece.text for piece in pieces if isinstance(piece, Piece)] == ["é", "→", "🏠"]
    assert isinstance(last, AnswerSummary)
    assert (last.text, last.ended, last.tokens) == ("é→🏠", "complete", len(tokens))


def test_a_stop_string_ends_the_answer_before_it(make: Make, model: LlamaModel) -> None:
    tokens = model.tokenize("The lamp is on.\nUser: more", special=False)
    question = replace(user_question(TEXT, "steered", max_tokens=60), stop=("\nUser:", "nothing"))
    answer = summary(make(spelling(model, tokens)), question)
    assert (answer.text, answer.ended) == ("The lamp is on.", "stop")


def test_a_grammar_is_kept_steered_and_alone(make: Make, large: LargeModel) -> None:
    assistant = make(large)
    for mode in ("local", "steered"):
        question = replace(
            user_question(TEXT, mode, max_tokens=8), grammar='root ::= ("on" | "off") "!"'
        )
        answer = summary(assistant, question)
        assert answer.text in ("on!", "off!")
        assert answer.ended == "complete"


def test_what_is_no_grammar_is_refused(make: Make) -> None:
    with pytest.raises(UsageError, match="not a GBNF grammar"):
        list(make().answer(replace(user_question(TEXT), grammar="nonsense")))


def test_samples_with_a_seed_come_again_and_without_differ(make: Make, large: LargeModel) -> None:
    assistant = make(large)

    def sampled(seed: int) -> str:
        sampling = Sampling(temperature=1.5, seed=seed)
        return summary(assistant, replace(user_question(TEXT, "steered"), sampling=sampling)).text

    assert sampled(7) == sampled(7) != sampled(8)
    assert sampled(0) != sampled(0)


@pytest.mark.parametrize("mode", ["local", "steered"])
def test_log_probabilities_come_with_every_token(make: Make, large: LargeModel, mode: Mode) -> None:
    question = replace(user_question(TEXT, mode), top_logprobs=3)
    *items, last = make(large).answer(question)
    facts = [item.facts for item in items if isinstance(item, Piece) and item.facts]
    assert isinstance(last, AnswerSummary)
    assert len(facts) == last.tokens
    for one in facts:
        assert one.top[0] == one.chosen  # greedy
        assert 0 >= one.top[0].logprob >= one.top[1].logprob >= one.top[2].logprob


def test_the_next_turn_of_a_conversation_reads_new_tokens_only(make: Make) -> None:
    assistant = make()
    first = summary(assistant, user_question(TEXT, max_tokens=5))
    turns = [
        ChatMessage(role="user", content=TEXT),
        ChatMessage(role="assistant", content=first.text),
        ChatMessage(role="user", content="Off"),
    ]
    second = summary(assistant, Question(tuple(turns), max_tokens=5))
    assert second.cached_tokens > first.prompt_tokens - 3


def test_a_text_is_continued_without_a_template(make: Make, model: LlamaModel) -> None:
    answer = summary(make(), Question(text="The lamp turns", max_tokens=4))
    assert answer.prompt_tokens == len(model.tokenize("The lamp turns", special=True))


def _byte_tokens(model: LlamaModel, character: str) -> list[int]:
    by_bytes = {model.piece(token): token for token in range(model.vocabulary_size)}
    return [by_bytes[bytes([byte])] for byte in character.encode()]


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_question_is_refused(make: Make, text: str) -> None:
    with pytest.raises(UsageError, match="the question is empty"):
        list(make().answer(user_question(text)))


def test_a_question_that_is_too_long_is_refused_and_the_next_one_answered(make: Make) -> None:
    assistant = make()
    with pytest.raises(UsageError, match=r"the question is \d+ tokens; the context holds 128"):
        list(assistant.answer(user_question("?! " * 100)))
    assert summary(assistant, user_question(TEXT)).tokens == 12


def test_an_answer_ends_where_the_context_does(make: Make) -> None:
    answer = summary(make(), user_question(TEXT, max_tokens=10_000))
    assert answer.prompt_tokens + answer.tokens <= 128
    assert answer.ended in ("length", "complete")


def test_a_running_answer_keeps_its_adapter_when_another_is_switched_to(
    make: Make, tiny: TinyFederation
) -> None:
    assistant = make()
    expected = summary(assistant, user_question(TEXT)).text
    steps = assistant.answer(user_question(TEXT))
    first = next(steps)
    switch = threading.Thread(target=assistant.switch, args=("newer", tiny.adapter_gguf))
    switch.start()
    *pieces, last = steps
    switch.join()
    assert isinstance(last, AnswerSummary)
    assert (last.adapter, text_of([first, *pieces])) == ("tiny", expected)
    assert assistant.adapter == "newer"


def test_an_abandoned_answer_does_not_block_the_next(make: Make) -> None:
    assistant = make()
    next(assistant.answer(user_question(TEXT)))
    assert summary(assistant, user_question(TEXT)).tokens == 12


def test_a_damaged_adapter_leaves_the_old_one_in_use(make: Make, tiny: TinyFederation) -> None:
    damaged = tiny.folder / "damaged.gguf"
    damaged.write_bytes(tiny.adapter_gguf.read_bytes()[:200])
    assistant = make()
    with pytest.raises(AdapterError):
        assistant.switch("damaged", damaged)
    assert summary(assistant, user_question(TEXT)).adapter == "tiny"


def test_a_running_answer_puts_a_switch_off(
    make: Make, tiny: TinyFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.assistant._SWITCH_WAIT_S", 0.01)
    assistant = make()
    answer = assistant.answer(user_question(TEXT))
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
        def fetch(self) -> RowsTold:
            seen.append(assistant.step_s)
            return super().fetch()

    assistant = make(Watched(model, len(encode_prompt(model, TEXT)), [40, 41]))
    answer = assistant.answer(user_question(TEXT, "steered"))
    next(answer)
    assert assistant.step_s == 0.0  # the answer waits for its reader
    list(answer)
    assert all(one > 0 for one in seen)
    assert seen
    assert assistant.step_s == 0.0


def test_a_device_that_never_sends_questions_answers_alone_and_says_so(
    make: Make, large: LargeModel
) -> None:
    settings = AssistantSettings(
        context_tokens=128, answer_tokens=12, threads=1, share_questions="never"
    )
    answer = summary(make(large, settings), user_question(TEXT, "steered"))
    assert (answer.steered_tokens, answer.steps) == (0, None)
    assert "never" in answer.fallback


def test_rows_for_calibration_are_those_of_both_models_whatever_was_read_before(
    make: Make, model: LlamaModel, small_pair: list[CachedText]
) -> None:
    assistant = make()
    text = [*encode_prompt(model, TEXT), 9, 8, 7]
    for one in small_pair:
        one.rewind(0)
    right = [one.append(text, 3) for one in small_pair]
    assert assistant.small_rows(text[:4], 0) is not None  # read in parts, as calibration does
    told = assistant.small_rows(text, 3)
    summary(assistant, user_question(TEXT))
    again = assistant.small_rows(text, 3)
    for rows in (told, again):
        assert rows is not None
        assert rows.adapter == "tiny"
        np.testing.assert_allclose(rows.expert, right[0], atol=1e-4)
        np.testing.assert_allclose(rows.antiexpert, right[1], atol=1e-4)


def test_calibration_waits_while_an_answer_runs_and_for_ever_after_the_end(make: Make) -> None:
    assistant = make()
    answer = assistant.answer(user_question(TEXT))
    next(answer)
    assert assistant.small_rows([1, 2, 3], 1) is None
    answer.close()
    assert assistant.small_rows([1, 2, 3], 1) is not None
    assistant.close()
    assert assistant.small_rows([1, 2, 3], 1) is None


def test_calibrated_coefficients_are_those_of_their_adapter_only(
    make: Make, large: LargeModel
) -> None:
    assistant = make(large)
    own = Coefficients(1.0, 0.3, 0.0)
    assistant.calibrated = ("tiny", own)
    assert summary(assistant, user_question(TEXT, "steered")).coefficients == own
    assistant.calibrated = ("another", own)
    assert summary(assistant, user_question(TEXT, "steered")).coefficients == WEIGHTS


def test_a_large_model_that_does_not_help_is_not_asked(make: Make, large: LargeModel) -> None:
    assistant = make(Failing(large, 0))
    assistant.calibrated = ("tiny", EXPERT_ALONE)
    answer = summary(assistant, user_question(TEXT, "steered"))
    assert (answer.steered_tokens, answer.steps) == (0, None)
    assert answer.fallback == "calibration found that the large model does not help here"
    assert answer.text == summary(assistant, user_question(TEXT)).text


def test_a_personal_adapters_answer_says_so(make: Make, tiny: TinyFederation) -> None:
    assistant = make()
    assert not summary(assistant, user_question(TEXT)).is_personal
    assistant.switch("ours", tiny.adapter_gguf, is_personal=True)
    answer = summary(assistant, user_question(TEXT))
    assert (answer.adapter, answer.is_personal) == ("ours", True)
