"""From the items of an answer to the replies of OpenAI's API, whole or in chunks. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from edge_runtime.api.openai_messages import (
    ChatChoice,
    ChatChunk,
    ChatLogprobs,
    ChatReply,
    ChunkChoice,
    Delta,
    Facts,
    FinishReason,
    FunctionCall,
    PromptDetails,
    ReplyMessage,
    TextChoice,
    TextLogprobs,
    TextReply,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from edge_runtime.api.tool_calls import Call, ToolCallReader
from edge_runtime.question import AnswerSummary, Notice, Piece, TokenFacts, TokenScore

Item: TypeAlias = Piece | Notice | AnswerSummary

_LEAST_LOGPROB: Final = -9999.0
"""OpenAI's word for minus infinity, which JSON has not."""


@dataclass(frozen=True, slots=True)
class ReplyHead:
    """What all parts of a reply begin with."""

    id: str
    created_unix_s: int
    model: str


class ChatChunks:
    """Turns one answer's items into chunks."""

    def __init__(
        self, head: ReplyHead, *, tools: frozenset[str] = frozenset(), includes_usage: bool = False
    ) -> None:
        """Begin an answer.

        Args:
            head: Of every chunk.
            tools: The functions whose calls are looked for.
            includes_usage: Whether a last chunk tells the tokens.
        """
        self._head = head
        self._reader = ToolCallReader(tools)
        self._usage: UnsetType | None = None if includes_usage else UNSET
        self._call_count = 0

    def begin(self) -> ChatChunk:
        """The chunk that says who speaks."""
        return self._chunk(Delta(role="assistant", content=""))

    def feed(self, item: Item) -> Iterator[ChatChunk]:
        """The chunks that an item makes; maybe none."""
        match item:
            case Piece(text=text, facts=facts):
                logprobs = ChatLogprobs((_token_logprob(facts),)) if facts else None
                deltas = [self._delta(part) for part in self._reader.feed(text)]
                if not deltas and logprobs:
                    deltas = [Delta(content="")]
                for delta in deltas:
                    yield self._chunk(delta, logprobs=logprobs)
                    logprobs = None
            case AnswerSummary():
                for part in self._reader.rest():
                    yield self._chunk(self._delta(part))
                yield self._end(item)
                if self._usage is None:
                    yield self._with_head((), usage=usage_of(item))
            case Notice():
                pass  # the last chunk's facts tell of it

    def _delta(self, part: str | Call) -> Delta:
        if isinstance(part, str):
            return Delta(content=part)
        call = _tool_call(self._head, part, self._call_count)
        self._call_count += 1
        delta = ToolCallDelta(index=self._call_count - 1, id=call.id, function=call.function)
        return Delta(tool_calls=(delta,))

    def _chunk(self, delta: Delta, *, logprobs: ChatLogprobs | None = None) -> ChatChunk:
        return self._with_head((ChunkChoice(delta=delta, logprobs=logprobs),), usage=self._usage)

    def _end(self, summary: AnswerSummary) -> ChatChunk:
        reason = finish_reason(summary, has_calls=self._reader.has_calls)
        choice = ChunkChoice(delta=Delta(), finish_reason=reason)
        return self._with_head((choice,), usage=self._usage, fedpt=facts_of(summary))

    def _with_head(
        self,
        choices: tuple[ChunkChoice, ...],
        *,
        usage: Usage | UnsetType | None,
        fedpt: Facts | UnsetType = UNSET,
    ) -> ChatChunk:
        head = self._head
        return ChatChunk(
            id=head.id,
            created=head.created_unix_s,
            model=head.model,
            choices=choices,
            usage=usage,
            fedpt=fedpt,
        )


def chat_reply(
    head: ReplyHead, items: Iterable[Item], *, tools: frozenset[str] = frozenset()
) -> ChatReply:
    """A whole answer; its items end with the summary."""
    reader = ToolCallReader(tools)
    parts: list[str | Call] = []
    logprobs: list[TokenLogprob] = []
    summary = None
    for item in items:
        if isinstance(item, Piece):
            parts += reader.feed(item.text)
            logprobs += [_token_logprob(item.facts)] if item.facts else []
        elif isinstance(item, AnswerSummary):
            summary = item
    assert summary is not None  # the assistant's promise
    parts += reader.rest()
    text = "".join(part for part in parts if isinstance(part, str))
    called = [part for part in parts if isinstance(part, Call)]
    calls = tuple(_tool_call(head, part, i) for i, part in enumerate(called))
    message = ReplyMessage(content=text or (None if calls else ""), tool_calls=calls or UNSET)
    choice = ChatChoice(
        message=message,
        logprobs=ChatLogprobs(tuple(logprobs)) if logprobs else None,
        finish_reason=finish_reason(summary, has_calls=bool(calls)),
    )
    return ChatReply(
        id=head.id,
        created=head.created_unix_s,
        model=head.model,
        choices=(choice,),
        usage=usage_of(summary),
        fedpt=facts_of(summary),
    )


class TextChunks:
    """Turns one completion's items into chunks."""

    def __init__(self, head: ReplyHead, *, includes_usage: bool = False) -> None:
        self._head = head
        self._usage: UnsetType | None = None if includes_usage else UNSET
        self._offset = 0

    def feed(self, item: Item) -> Iterator[TextReply]:
        """The chunks that an item makes; maybe none."""
        match item:
            case Piece(text=text, facts=facts):
                logprobs = _text_logprobs([facts], self._offset) if facts else None
                self._offset += len(facts.chosen.token) if facts else 0
                choice = TextChoice(text=text, logprobs=logprobs, finish_reason=None)
                yield _text_reply(self._head, (choice,), self._usage)
            case AnswerSummary():
                choice = TextChoice(text="", logprobs=None, finish_reason=finish_reason(item))
                yield _text_reply(self._head, (choice,), self._usage, facts_of(item))
                if self._usage is None:
                    yield _text_reply(self._head, (), usage_of(item))
            case Notice():
                pass  # the last chunk's facts tell of it


def text_reply(head: ReplyHead, items: Iterable[Item]) -> TextReply:
    """A whole completion; its items end with the summary."""
    facts: list[TokenFacts] = []
    summary = None
    for item in items:
        if isinstance(item, Piece):
            facts += [item.facts] if item.facts else []
        elif isinstance(item, AnswerSummary):
            summary = item
    assert summary is not None  # the assistant's promise
    choice = TextChoice(
        text=summary.text,
        logprobs=_text_logprobs(facts, 0) if facts else None,
        finish_reason=finish_reason(summary),
    )
    return _text_reply(head, (choice,), usage_of(summary), facts_of(summary))


def usage_of(summary: AnswerSummary) -> Usage:
    """Tokens read and written."""
    return Usage(
        summary.prompt_tokens,
        summary.tokens,
        summary.prompt_tokens + summary.tokens,
        PromptDetails(summary.cached_tokens),
    )


def finish_reason(summary: AnswerSummary, *, has_calls: bool = False) -> FinishReason:
    """Why the answer ended, in OpenAI's words."""
    if summary.ended == "length":
        return "length"
    return "tool_calls" if has_calls else "stop"


def facts_of(summary: AnswerSummary) -> Facts:
    """The extension field: the summary without its text, and the large model's share.

    That is the part of the drafts judged by the large model that it changed; None: none were.
    """
    facts: Facts = msgspec.to_builtins(summary)
    del facts["text"]
    steps = summary.steps
    judged = steps.drafts if steps else 0
    facts["large_share"] = 1 - steps.drafts_right / judged if steps and judged else None
    return facts


def _tool_call(head: ReplyHead, call: Call, index: int) -> ToolCall:
    name = f"call_{head.id.rpartition('-')[2]}_{index}"
    return ToolCall(id=name, function=FunctionCall(call.name, call.arguments))


def _token_logprob(facts: TokenFacts) -> TokenLogprob:
    chosen = facts.chosen
    return TokenLogprob(
        chosen.token,
        _finite(chosen),
        tuple(chosen.utf8),
        tuple(TopLogprob(one.token, _finite(one), tuple(one.utf8)) for one in facts.top),
    )


def _text_logprobs(facts: list[TokenFacts], offset: int) -> TextLogprobs:
    offsets = []
    for one in facts:
        offsets.append(offset)
        offset += len(one.chosen.token)
    return TextLogprobs(
        tuple(one.chosen.token for one in facts),
        tuple(_finite(one.chosen) for one in facts),
        tuple({top.token: _finite(top) for top in one.top} for one in facts),
        tuple(offsets),
    )


def _finite(score: TokenScore) -> float:
    return max(score.logprob, _LEAST_LOGPROB)


def _text_reply(
    head: ReplyHead,
    choices: tuple[TextChoice, ...],
    usage: Usage | UnsetType | None,
    fedpt: Facts | UnsetType = UNSET,
) -> TextReply:
    return TextReply(
        id=head.id,
        created=head.created_unix_s,
        model=head.model,
        choices=choices,
        usage=usage,
        fedpt=fedpt,
    )
