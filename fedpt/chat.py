"""From an example to text and to tokens, by the model's own chat template.

Training, evaluation and the assistant all come through here, so they see the same tokens.
"""

from dataclasses import dataclass
from typing import Any, Final, Protocol

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


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """An example as token ids; the answer ends with the token that ends a turn."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    def truncated(self, length: int) -> "EncodedExample":
        """At most `length` tokens: the prompt loses its beginning, then the answer its end."""
        answer = self.answer[: length - 1]
        return EncodedExample(self.prompt[-(length - len(answer)) :], answer)


def encode_prompt(tokenizer: Tokenizer, prompt: str, *, system: str = "") -> tuple[int, ...]:
    """The tokens after which the model's answer begins."""
    text = render_prompt(tokenizer.chat_template, prompt, system=system)
    tokens = tuple(tokenizer.tokenize(text, special=True))
    begin = tokenizer.begin_token
    return tokens if begin is None or tokens[:1] == (begin,) else (begin, *tokens)


def encode_example(tokenizer: Tokenizer, example: Example) -> EncodedExample:
    """An example's prompt and answer as tokens."""
    answer = tokenizer.tokenize(example.answer, special=False)
    prompt = encode_prompt(tokenizer, example.prompt, system=example.system)
    return EncodedExample(prompt, (*answer, tokenizer.end_token))


def render_prompt(template: str, prompt: str, *, system: str = "") -> str:
    """The text after which the model's answer begins.

    Templates come with models from anywhere, hence the sandbox.

    Raises:
        ModelFileError: The template fails.
    """
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _raise
    try:
        return environment.from_string(template or _PLAIN_TEMPLATE).render(
            messages=messages, add_generation_prompt=True, bos_token="", eos_token=""
        )
    except (TemplateError, *_FAULTS_OF_TEMPLATES) as error:
        raise ModelFileError(f"the model's chat template fails: {error}") from error


def _raise(message: str) -> Any:
    raise TemplateError(message)
