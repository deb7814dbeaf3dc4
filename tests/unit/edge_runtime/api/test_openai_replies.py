import msgspec
import pytest

from edge_runtime.api.openai_messages import ChatChunk
from edge_runtime.api.openai_replies import (
    ChatChunks,
    Item,
    ReplyHead,
    TextChunks,
    chat_reply,
    facts_of,
    finish_reason,
    text_reply,
    usage_of,
)
from edge_runtime.question import Notice, Piece, Question, TokenFacts, TokenScore
from tests.fakes.api_servers import summary_of

HEAD = ReplyHead("chatcmpl-abc", 1_700_000_000, "fedpt")
QUESTION = Question(text="?")
SUMMARY = summary_of("Grüße", QUESTION, tokens=2)
CALL = '<tool_call>{"name": "lamp", "arguments": {"on": true}}</tool_call>'
TOOLS = frozenset({"lamp"})


def fact(token: str, logprob: float = -0.5) -> TokenFacts:
    score = TokenScore(token, logprob, token.encode())
    return TokenFacts(score, (score, TokenScore("ä", float("-inf"), "ä".encode())))


ANSWER: list[Item] = [Piece("Gr", facts=fact("Gr")), Notice(False, "silent"),
                      Piece("üße", facts=fact("üße")), SUMMARY]  # fmt: skip


def chunks_of(items: list[Item], *, usage: bool = False) -> list[ChatChunk]:
    chunks = ChatChunks(HEAD, tools=TOOLS, includes_usage=usage)
    return [chunks.begin(), *(chunk for item in items for chunk in chunks.feed(item))]


def test_a_whole_answer_has_text_logprobs_usage_and_facts() -> None:
    reply = chat_reply(HEAD, ANSWER)
    [choice] = reply.choices
    assert (choice.message.content, choice.finish_reason) == ("Grüße", "stop")
    assert choice.logprobs is not None
    assert [one.token for one in choice.logprobs.content] == ["Gr", "üße"]
    assert choice.logprobs.content[1].bytes == tuple("üße".encode())
    assert reply.usage.total_tokens == 7
    assert reply.fedpt["mode"] == "local"


def test_minus_infinity_is_a_number_that_json_has() -> None:
    [choice] = chat_reply(HEAD, ANSWER).choices
    assert choice.logprobs is not None
    assert choice.logprobs.content[0].top_logprobs[1].logprob == -9999
    assert b"null" not in msgspec.json.encode(choice.logprobs.content)


def test_chunks_make_the_same_text_and_the_last_says_how_it_ended() -> None:
    chunks = chunks_of(ANSWER)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Grüße"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert chunks[-1].fedpt == facts_of(SUMMARY)
    assert b'"usage"' not in msgspec.json.encode(chunks)


def test_usage_comes_alone_in_the_very_last_chunk() -> None:
    chunks = chunks_of(ANSWER, usage=True)
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * 4
    assert (chunks[-1].choices, chunks[-1].usage) == ((), usage_of(SUMMARY))


def test_a_call_is_no_text() -> None:
    [choice] = chat_reply(HEAD, [Piece(CALL), SUMMARY], tools=TOOLS).choices
    assert (choice.message.content, choice.finish_reason) == (None, "tool_calls")
    [call] = choice.message.tool_calls or []
    assert (call.id, call.function.arguments) == ("call_abc_0", '{"on": true}')


def test_calls_in_a_stream_are_whole_and_numbered() -> None:
    pieces: list[Item] = [Piece(one) for one in f"Well. {CALL}\n{CALL}"]
    deltas = [chunk.choices[0].delta for chunk in chunks_of([*pieces, SUMMARY])]
    calls = [call for delta in deltas for call in delta.tool_calls or ()]
    assert [(call.index, call.id) for call in calls] == [(0, "call_abc_0"), (1, "call_abc_1")]
    assert "".join(delta.content or "" for delta in deltas) == "Well."


def test_logprobs_come_also_where_text_is_held_back() -> None:
    chunks = chunks_of([Piece("<tool", facts=fact("<tool")), Piece("!", facts=fact("!")), SUMMARY])
    tokens = [one.token for chunk in chunks for choice in chunk.choices if choice.logprobs
              for one in choice.logprobs.content]  # fmt: skip
    assert tokens == ["<tool", "!"]


@pytest.mark.parametrize(
    ("ended", "has_calls", "reason"),
    [
        ("complete", False, "stop"),
        ("stop", False, "stop"),
        ("length", False, "length"),
        ("complete", True, "tool_calls"),
        ("length", True, "length"),
    ],
)
def test_endings_have_openais_names(ended: str, has_calls: bool, reason: str) -> None:
    summary = msgspec.structs.replace(SUMMARY, ended=ended)
    assert finish_reason(summary, has_calls=has_calls) == reason


def test_a_completion_tells_where_its_tokens_stand() -> None:
    [choice] = text_reply(HEAD, ANSWER).choices
    assert (choice.text, choice.finish_reason) == ("Grüße", "stop")
    assert choice.logprobs is not None
    assert choice.logprobs.text_offset == (0, 2)
    assert choice.logprobs.top_logprobs[0] == {"Gr": -0.5, "ä": -9999}


def test_a_completions_chunks_go_on_where_the_last_ended() -> None:
    chunks = TextChunks(HEAD, includes_usage=True)
    parts = [part for item in ANSWER for part in chunks.feed(item)]
    assert "".join(choice.text for part in parts for choice in part.choices) == "Grüße"
    offsets = [choice.logprobs.text_offset for part in parts for choice in part.choices
               if choice.logprobs]  # fmt: skip
    assert offsets == [(0,), (2,)]
    assert parts[-1].usage == usage_of(SUMMARY)


def test_the_large_models_share_is_what_it_changed() -> None:
    steered = summary_of("", Question(text="?", mode="steered"), steered=3)
    assert facts_of(steered)["large_share"] == pytest.approx(0.2)
    assert facts_of(SUMMARY)["large_share"] is None
    assert "text" not in facts_of(SUMMARY)
