"""From examples to tokens, judged by transformers' own chat templates."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from fedpt.chat import (
    ChatMessage,
    EncodedExample,
    encode_example,
    encode_prompt,
    render_messages,
    render_prompt,
)
from fedpt.drivers.llama import LlamaModel
from fedpt.errors import ModelFileError
from fedpt.examples import Example
from tests.fakes.tiny_federation import EXAMPLES, TinyFederation
from tests.fakes.tiny_models import CHAT_TEMPLATE


@dataclass
class Letters:
    """A tokenizer of code points; `^` (94) begins texts, if wanted."""

    chat_template: str = ""
    begin_token: int | None = None
    end_token: int = 0

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        return [ord(letter) + (0 if special else 1000) for letter in text]


@pytest.mark.llama
@pytest.mark.parametrize("example", EXAMPLES)
def test_prompts_are_the_tokens_of_transformers(tiny: TinyFederation, example: Example) -> None:
    theirs = AutoTokenizer.from_pretrained(tiny.small_folder)
    messages = [{"role": "system", "content": example.system}] if example.system else []
    messages.append({"role": "user", "content": example.prompt})
    expected = theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    with LlamaModel(tiny.small, vocabulary_only=True) as ours:
        encoded = encode_example(ours, example)
    assert list(encoded.prompt) == expected


@pytest.mark.llama
@pytest.mark.parametrize("example", EXAMPLES)
def test_answers_end_as_those_of_transformers(tiny: TinyFederation, example: Example) -> None:
    theirs = AutoTokenizer.from_pretrained(tiny.small_folder)
    turns = {"system": example.system, "user": example.prompt, "assistant": example.answer}
    messages = [{"role": role, "content": text} for role, text in turns.items() if text]
    expected = theirs.apply_chat_template(messages)["input_ids"]
    with LlamaModel(tiny.small, vocabulary_only=True) as ours:
        encoded = encode_example(ours, example)
    whole = [*encoded.prompt, *encoded.answer]
    assert whole == expected[: len(whole)]
    assert theirs.decode(expected[len(whole) :]) == "\n"  # what the template puts between turns


def test_without_a_template_texts_are_lines() -> None:
    assert render_prompt("", "question", system="scene") == "scene\nquestion\n"


def test_a_template_has_its_blocks_trimmed_as_in_transformers() -> None:
    template = (
        "{% for m in messages %}\n  {% if true %}\n{{ m.content }}{% endif %}\n{% endfor %}\n"
    )
    assert render_prompt(template, "q") == "q"


def test_tools_are_written_as_transformers_does() -> None:
    message = ChatMessage(role="user", content="a")
    tools = [{"name": "lamp", "about": "<Küche> & 'hall'"}]
    text = render_messages("{{ tools | tojson }}", [message], tools)
    assert text == """[{"name": "lamp", "about": "<Küche> & 'hall'"}]"""


def test_prompts_may_spell_special_tokens_but_answers_not() -> None:
    encoded = encode_example(Letters(), Example("q", "a"))
    assert encoded == EncodedExample((ord("q"), ord("\n")), (ord("a") + 1000, 0))


@pytest.mark.parametrize(
    ("template", "begin", "expected"),
    [("q", None, "q"), ("q", 94, "^q"), ("^q", 94, "^q"), ("^q", None, "^q"), ("{#-#}", 94, "^")],
)
def test_the_begin_token_is_there_once_if_wanted(
    template: str, begin: int | None, expected: str
) -> None:
    tokens = encode_prompt(Letters(template, begin), "")
    assert "".join(map(chr, tokens)) == expected


def test_text_in_a_question_is_no_template() -> None:
    assert render_prompt(CHAT_TEMPLATE, "{{ 7 * 7 }}").count("{{ 7 * 7 }}") == 1


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('System role not supported') }}",
        "{% if %}",
        "{{ 1 / 0 }}",
        "{{ 'a' + 1 }}",
        "{{ '{'.format() }}",
        "{{ messages[7].content.x }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ " + "(" * 5000 + ")" * 5000 + " }}",
        "{{ (10 ** 5000) | string }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ messages.append(1) }}",
    ],
)
def test_a_template_that_fails_is_the_models_fault(template: str) -> None:
    with pytest.raises(ModelFileError, match="the model's chat template fails: "):
        render_prompt(template, "q")


@given(st.lists(st.integers()), st.lists(st.integers(), min_size=1), st.integers(1, 20))
def test_truncation_keeps_the_end_of_the_prompt_and_the_start_of_the_answer(
    prompt: list[int], answer: list[int], length: int
) -> None:
    whole = EncodedExample(tuple(prompt), tuple(answer))
    cut = whole.truncated(length)
    assert len(cut.prompt) + len(cut.answer) == min(length, len(prompt) + len(cut.answer))
    assert whole.prompt[len(prompt) - len(cut.prompt) :] == cut.prompt
    assert whole.answer[: length - 1] == cut.answer


def test_what_fits_is_not_truncated() -> None:
    whole = EncodedExample((1, 2), (3, 4))
    assert whole.truncated(4) == whole
    assert whole.truncated(3) == EncodedExample((2,), (3, 4))
    assert whole.truncated(2) == EncodedExample((2,), (3,))
