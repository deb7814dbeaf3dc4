"""From an example to text and to tokens, by the model's own chat template.

Training, evaluation and the assistant all come through here, so they see the same tokens.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from fedpt.errors import ModelFileError
from fedpt.examples import Example

_PLAIN_TEMPLATE: Final = (
    "{% for m in messages %}{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}{% endif %}"
)
"""For models without a chat template: the texts, a line each."""


_FAULTS_OF_TEMPLATES: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What `{{ 1 / 0 }}` and its like raise: jinja lets Python's own errors through."""


class Tokenizer(Protocol):
    """What is needed of a model: `fedpt.drivers.llama.LlamaModel` is one."""

    @property
    def chat_template(self) -> str:
        """A Jinja template, empty if there is none."""

    @property
    def end_token(self) -> int:
        """The token that ends an answer."""

    @property
    def begin_token(self) -> int | None:
        """The token that every text begins with, if the model wants one."""

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of a text, nothing added."""


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn of a conversation, in OpenAI's terms."""

    role: str
    content: str
    name: str = ""
    tool_calls: tuple[Mapping[str, object], ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """An example as token ids; the answer ends with the token that ends a turn."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)

    def truncated(self, length: int) -> "EncodedExample":
        """At most `length` tokens: the prompt loses its beginning, then the answer its end."""
        answer = self.answer[: length - 1]
        return EncodedExample(self.prompt[-(length - len(answer)) :], answer)


def encode_prompt(tokenizer: Tokenizer, prompt: str, *, system: str = "") -> tuple[int, ...]:
    """The tokens after which the model's answer to a single question begins."""
    return encode_messages(tokenizer, _question(prompt, system))


def encode_example(tokenizer: Tokenizer, example: Example) -> EncodedExample:
    """An example's prompt and answer as tokens."""
    answer = tokenizer.tokenize(example.answer, special=False)
    prompt = encode_prompt(tokenizer, example.prompt, system=example.system)
    return EncodedExample(prompt, (*answer, tokenizer.end_token))


def encode_messages(
    tokenizer: Tokenizer,
    messages: Sequence[ChatMessage],
    tools: Sequence[Mapping[str, object]] = (),
) -> tuple[int, ...]:
    """The tokens after which the model's answer to a conversation begins."""
    text = render_messages(tokenizer.chat_template, messages, tools)
    return with_begin(tokenizer, tokenizer.tokenize(text, special=True))


def with_begin(tokenizer: Tokenizer, tokens: Sequence[int]) -> tuple[int, ...]:
    """A text's tokens, with the one that every text begins with, where the model wants one."""
    begin = tokenizer.begin_token
    return tuple(tokens) if begin is None or tokens[:1] == [begin] else (begin, *tokens)


def render_prompt(template: str, prompt: str, *, system: str = "") -> str:
    """The text after which the model's answer to a single question begins.

    Raises:
        ModelFileError: The template fails.
    """
    return render_messages(template, _question(prompt, system))


def render_messages(
    template: str, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, object]] = ()
) -> str:
    """The text after which the model's answer to a conversation begins.

    Templates come with models from anywhere, hence the sandbox.

    Raises:
        ModelFileError: The template fails.
    """
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _raise
    environment.filters["tojson"] = _to_json
    try:
        return environment.from_string(template or _PLAIN_TEMPLATE).render(
            messages=[msgspec.to_builtins(message) for message in messages],
            tools=list(tools) or None,
            add_generation_prompt=True,
            bos_token="",
            eos_token="",
        )
    except (TemplateError, *_FAULTS_OF_TEMPLATES) as error:
        raise ModelFileError(f"the model's chat template fails: {error}") from error


def _question(prompt: str, system: str) -> list[ChatMessage]:
    scene = [ChatMessage(role="system", content=system)] if system else []
    return [*scene, ChatMessage(role="user", content=prompt)]


def _to_json(value: object, indent: int | None = None) -> str:
    """As transformers writes JSON, which models have learnt: jinja's own escapes and sorts."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> Any:
    raise TemplateError(message)
