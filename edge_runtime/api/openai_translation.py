"""From a request of OpenAI's API to a question for the assistant. Pure."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import msgspec

from edge_runtime.api.api_errors import ApiError
from edge_runtime.api.openai_messages import (
    ChatRequest,
    CompletionRequest,
    Function,
    Generation,
    Message,
    NamedToolChoice,
    ResponseFormat,
    ToolCall,
)
from edge_runtime.api.schema_limits import fault_of_schema, is_deep
from edge_runtime.api.tool_prompts import calls_schema, prompt_with_tools
from edge_runtime.consent import SharePolicy, choose_mode
from edge_runtime.question import Mode, Question
from fedpt.chat import ChatMessage
from fedpt.decoding.sampling import Sampling
from fedpt.errors import UsageError

MODELS: Final[Mapping[str, Mode | None]] = {
    "fedpt": None,
    "fedpt-local": "local",
    "fedpt-steered": "steered",
}
"""What can be asked for as a model, and the mode that it means."""

_ANY_OBJECT: Final[Mapping[str, object]] = {"type": "object"}
_SEEDS: Final = 2**53
"""Seeds of the sampler: 1 to this; 0 would be chance."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DeviceTraits:
    """What a device brings to every request."""

    template: str
    """The small model's chat template."""
    system_prompt: str
    policy: SharePolicy
    has_large: bool
    to_grammar: Callable[[Mapping[str, object]], str]
    """From a JSON schema to GBNF; raises UsageError."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and how its answer is to be told."""

    question: Question
    model: str
    note: str = ""
    """Why it is not answered in the mode that was asked for."""
    tools: frozenset[str] = frozenset()
    """The functions whose calls are looked for in the answer."""
    is_streamed: bool = False
    includes_usage: bool = False


def read_request(content: bytes, kind: type[T]) -> T:
    """A request's body.

    Raises:
        ApiError: It is none of that kind; the message says where.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise _fault(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(f"the body is not JSON: {error}") from error


def chat_to_asked(body: ChatRequest, device: DeviceTraits) -> Asked:
    """What `POST /v1/chat/completions` asks.

    Raises:
        ApiError: It asks for what cannot be.
    """
    _require_modest(body)
    functions = _offered(body)
    messages = [_message(one, f"messages[{i}]") for i, one in enumerate(body.messages)]
    prompt = prompt_with_tools(device.template, messages, functions, system=device.system_prompt)
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError("top_logprobs needs logprobs = true", param="top_logprobs")
    question = Question(
        prompt.messages,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        grammar=_grammar(body, functions, device),
        tools=prompt.tools,
        top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )
    return _asked(body, device, question, functions)


def text_to_asked(body: CompletionRequest, device: DeviceTraits) -> Asked:
    """What `POST /v1/completions` asks.

    Raises:
        ApiError: It asks for what cannot be.
    """
    texts = (body.prompt,) if isinstance(body.prompt, str) else body.prompt
    if len(texts) != 1:
        raise ApiError(f"{len(texts)} prompts: only one at a time is answered", param="prompt")
    if not texts[0]:
        raise ApiError("the prompt is empty", param="prompt")
    if body.echo:
        raise ApiError("echo is not supported", param="echo")
    if body.best_of not in (None, 1):
        raise ApiError(f"best_of = {body.best_of}: only 1 is supported", param="best_of")
    question = Question(text=texts[0], max_tokens=body.max_tokens, top_logprobs=body.logprobs)
    return _asked(body, device, question)


def require_model(name: str) -> Mode | None:
    """The mode that a model's name means; None: the device's policy decides.

    Raises:
        ApiError: There is no such model.
    """
    if name not in MODELS:
        raise ApiError(
            f"there is no model {name[:80]!r}; there are {', '.join(MODELS)}",
            status=404,
            param="model",
            code="model_not_found",
        )
    return MODELS[name]


def _asked(
    body: Generation, device: DeviceTraits, question: Question, functions: Sequence[Function] = ()
) -> Asked:
    if body.n not in (None, 1):
        raise ApiError(f"n = {body.n}: only 1 is supported", param="n")
    if body.stream_options is not None and not body.stream:
        raise ApiError("stream_options needs stream = true", param="stream_options")
    model = body.model or "fedpt"
    wanted = _wanted(require_model(model), body.fedpt.mode if body.fedpt else None)
    mode, note = choose_mode(device.policy, wanted, has_large=device.has_large)
    stop = (body.stop,) if isinstance(body.stop, str) else body.stop or ()
    return Asked(
        replace(question, mode=mode, sampling=_sampling(body), stop=stop),
        model,
        note,
        tools=frozenset(one.name for one in functions),
        is_streamed=bool(body.stream),
        includes_usage=bool(body.stream_options and body.stream_options.include_usage),
    )


def _wanted(by_model: Mode | None, by_field: Mode | None) -> Mode | None:
    if by_model and by_field and by_model != by_field:
        raise ApiError(
            f"model fedpt-{by_model} and fedpt.mode = {by_field} contradict each other",
            param="fedpt.mode",
        )
    return by_model or by_field


def _sampling(body: Generation) -> Sampling:
    """Without a temperature the likeliest token is taken: boards are asked for facts and deeds."""
    given = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": 0 if body.top_k == -1 else body.top_k,  # vLLM's word for none
        "min_p": body.min_p,
        "repetition_penalty": body.repetition_penalty,
        "seed": None if body.seed is None else body.seed % _SEEDS or _SEEDS,
    }
    try:
        return msgspec.convert({k: v for k, v in given.items() if v is not None}, Sampling)
    except msgspec.ValidationError as error:
        raise _fault(error) from error


def _message(message: Message, place: str) -> ChatMessage:
    return ChatMessage(
        role="system" if message.role == "developer" else message.role,
        content=_text(message, place),
        name=message.name or "",
        tool_calls=tuple(_earlier_call(one) for one in message.tool_calls or ()),
        tool_call_id=message.tool_call_id or "",
    )


def _text(message: Message, place: str) -> str:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    for i, part in enumerate(message.content):
        if part.type != "text" or part.text is None:
            raise ApiError(
                f"a part of type {part.type[:40]!r}: only text is understood",
                param=f"{place}.content[{i}].type",
            )
    return "\n".join(part.text or "" for part in message.content)


def _earlier_call(call: ToolCall) -> Mapping[str, object]:
    """With its arguments as an object: templates write them as JSON themselves."""
    arguments: object = call.function.arguments
    with suppress(ValueError, RecursionError):  # the model's own slip is shown as it was
        value = json.loads(call.function.arguments)
        arguments = arguments if is_deep(value) else value
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.function.name, "arguments": arguments},
    }


def _require_modest(body: ChatRequest) -> None:
    for i, tool in enumerate(body.tools or ()):
        if fault := fault_of_schema(tool.function.parameters):
            raise ApiError(fault, param=f"tools[{i}].function.parameters")
    if fault := fault_of_schema(_format_schema(body.response_format)):
        raise ApiError(fault, param="response_format.json_schema.schema")


def _offered(body: ChatRequest) -> tuple[Function, ...]:
    """The functions that may be called."""
    functions = tuple(one.function for one in body.tools or ())
    choice = body.tool_choice
    if choice == "none":
        return ()
    if isinstance(choice, NamedToolChoice):
        name = choice.function.name
        functions = tuple(one for one in functions if one.name == name)
        if not functions:
            raise ApiError(f"tools has no function {name[:80]!r}", param="tool_choice")
    if choice == "required" and not functions:
        raise ApiError("tool_choice = required needs tools", param="tool_choice")
    return functions


def _grammar(body: ChatRequest, functions: Sequence[Function], device: DeviceTraits) -> str:
    """What the answer is made to keep to, as GBNF; empty: nothing."""
    must_call = body.tool_choice == "required" or isinstance(body.tool_choice, NamedToolChoice)
    schema = _format_schema(body.response_format)
    if must_call:
        schema = calls_schema(functions)
    elif schema is not None and functions:
        schema = calls_schema(functions, otherwise=schema)
    if schema is None:
        return ""
    try:
        return device.to_grammar(schema)
    except UsageError as error:
        raise ApiError(str(error), param="tools" if must_call else "response_format") from error


def _format_schema(wanted: ResponseFormat | None) -> Mapping[str, object] | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return _ANY_OBJECT
    if wanted.json_schema is None:
        raise ApiError(
            "type json_schema needs the field json_schema", param="response_format.json_schema"
        )
    return wanted.json_schema.schema


def _fault(error: msgspec.ValidationError) -> ApiError:
    """In OpenAI's terms: "Expected `str`, got `int` - at `$.messages[0].role`"."""
    message, _, place = str(error).partition(" - at `$")
    param = place.rstrip("`").lstrip(".")
    text = f"{message[:1].lower()}{message[1:]}"
    return ApiError(f"{param}: {text}" if param else text, param=param or None)
