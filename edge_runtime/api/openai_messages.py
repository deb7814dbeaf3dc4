"""Requests and replies of OpenAI's API, as far as they are served here.

Requests let unknown fields pass, for clients send many; replies are what the `openai` package
reads. The field `fedpt` is ours, both ways.
"""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from edge_runtime.question import Mode

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls"]
Facts: TypeAlias = dict[str, object]
"""Of our own field."""

# -- requests ----------------------------------------------------------------------------------


class FedptOptions(msgspec.Struct, frozen=True):
    """What only this device understands."""

    mode: Mode | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    """How to stream."""

    include_usage: bool | None = None


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """What both ways of asking share. A field that is null is a field that is not there."""

    model: str | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | Annotated[tuple[str, ...], Meta(max_length=16)] | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    fedpt: FedptOptions | None = None


class ContentPart(msgspec.Struct, frozen=True):
    """A part of a message; only text is understood."""

    type: str
    text: str | None = None


class FunctionCall(msgspec.Struct, frozen=True):
    """A function and its arguments, a JSON text."""

    name: str
    arguments: str = "{}"


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that the model makes."""

    id: str = ""
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[ContentPart, ...] | None = None
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    tool_call_id: str | None = None


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A function that may be called."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, object] | None = None


class Tool(msgspec.Struct, frozen=True):
    """Functions are the only tools there are."""

    type: Literal["function"]
    function: Function


class FunctionName(msgspec.Struct, frozen=True):
    """The one to call."""

    name: str


class NamedToolChoice(msgspec.Struct, frozen=True):
    """This function must be called."""

    type: Literal["function"]
    function: FunctionName


class JsonSchema(msgspec.Struct, frozen=True):
    """A schema that the answer must keep to."""

    schema: dict[str, object]


class ResponseFormat(msgspec.Struct, frozen=True):
    """What the answer must look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatRequest(Generation, frozen=True, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[tuple[Message, ...], Meta(min_length=1, max_length=1000)]
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[tuple[Tool, ...], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None


class CompletionRequest(Generation, frozen=True, kw_only=True):
    """`POST /v1/completions`."""

    prompt: str | tuple[str, ...]
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: int | None = None


# -- replies -----------------------------------------------------------------------------------


class PromptDetails(msgspec.Struct, frozen=True):
    """Of the prompt's tokens, those that need not be computed again."""

    cached_tokens: int


class Usage(msgspec.Struct, frozen=True):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class TopLogprob(msgspec.Struct, frozen=True):
    """A token that might have come."""

    token: str
    logprob: float
    bytes: tuple[int, ...]


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token that came."""

    token: str
    logprob: float
    bytes: tuple[int, ...]
    top_logprobs: tuple[TopLogprob, ...]


class ChatLogprobs(msgspec.Struct, frozen=True):
    """Of a chat's answer, or a chunk of it."""

    content: tuple[TokenLogprob, ...]
    refusal: None = None


class ReplyMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The assistant's turn."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: tuple[ToolCall, ...] | UnsetType = UNSET


class ChatChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The only one."""

    index: int = 0
    message: ReplyMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatReply(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[ChatChoice, ...]
    usage: Usage
    fedpt: Facts


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True):
    """A call in a stream; always whole."""

    index: int
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """What a chunk adds."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: tuple[ToolCallDelta, ...] | UnsetType = UNSET


class ChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The only one."""

    index: int = 0
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None


class ChatChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A part of an answer. `fedpt` comes with the one that says how it ended."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: tuple[ChunkChoice, ...] = ()
    usage: Usage | UnsetType | None = UNSET
    fedpt: Facts | UnsetType = UNSET


class TextLogprobs(msgspec.Struct, frozen=True):
    """Of a completion; all four have one entry a token."""

    tokens: tuple[str, ...]
    token_logprobs: tuple[float, ...]
    top_logprobs: tuple[dict[str, float], ...]
    text_offset: tuple[int, ...]


class TextChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The only one."""

    index: int = 0
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason | None


class TextReply(msgspec.Struct, frozen=True, kw_only=True):
    """A completion, or a part of one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: tuple[TextChoice, ...]
    usage: Usage | UnsetType | None = UNSET
    fedpt: Facts | UnsetType = UNSET


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """A way of being answered."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "fedpt"


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/models`; `fedpt` says what the device allows."""

    object: Literal["list"] = "list"
    data: tuple[ModelCard, ...]
    fedpt: Facts
