"""The API as `openai`'s own client sees it, before real models: a small one, an adapter, a large.

The tiny models speak gibberish, so what is said is compared with the assistant itself, and what a
grammar makes sure of is checked.
"""

import json
import time
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from edge_runtime.assistant import Assistant
from edge_runtime.question import AnswerSummary, Mode, Question
from edge_runtime.settings import AssistantSettings
from fedpt.chat import ChatMessage
from tests.fakes.api_servers import WAIT_S, RunningApi, ScriptedAssistant, running_api

HELLO: Any = [{"role": "user", "content": "Turn on the lamp"}]
ROOM = {
    "type": "object",
    "properties": {"room": {"enum": ["kitchen", "hall"]}, "on": {"type": "boolean"}},
    "required": ["room", "on"],
    "additionalProperties": False,
}
LAMP: Any = {
    "type": "function",
    "function": {"name": "lamp", "description": "Switches a lamp.", "parameters": ROOM},
}
STOP: Any = {"type": "function", "function": {"name": "stop", "description": "Stops all."}}


def said(assistant: Assistant, mode: Mode = "local") -> AnswerSummary:
    """What the assistant itself answers."""
    message = ChatMessage(role="user", content="Turn on the lamp")
    *_, summary = assistant.answer(Question((message,), mode=mode))
    assert isinstance(summary, AnswerSummary)
    return summary


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": "fedpt", "messages": HELLO, **fields})


@pytest.mark.parametrize("mode", ["local", "steered"])
def test_an_answer_is_the_assistants(
    client: openai.OpenAI, assistant: Assistant, mode: Mode
) -> None:
    reply = ask(client, model=f"fedpt-{mode}")
    expected = said(assistant, mode)
    assert reply.choices[0].message.content == expected.text
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.prompt_tokens == expected.prompt_tokens
    assert reply.usage.completion_tokens == expected.tokens == 24
    assert reply.fedpt["mode"] == mode
    assert reply.fedpt["adapter"] == "tiny-adapter"
    assert reply.fedpt["steered_tokens"] == (24 if mode == "steered" else 0)


@pytest.mark.parametrize("mode", ["local", "steered"])
def test_a_stream_makes_the_same_answer(
    client: openai.OpenAI, assistant: Assistant, mode: Mode
) -> None:
    extra = {"fedpt": {"mode": mode}}
    usage = {"include_usage": True}
    *chunks, last, counted = ask(client, stream=True, stream_options=usage, extra_body=extra)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == said(assistant, mode).text
    assert last.choices[0].finish_reason == "length"
    assert last.fedpt["mode"] == mode
    assert counted.choices == []
    assert counted.usage.total_tokens == counted.usage.prompt_tokens + 24


def test_the_next_turn_finds_its_beginning_in_the_cache(client: openai.OpenAI) -> None:
    first = ask(client, max_tokens=3)
    answer = {"role": "assistant", "content": first.choices[0].message.content}
    second = ask(client, messages=[*HELLO, answer, {"role": "user", "content": "Off"}])
    assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens - 1


def test_sampling_follows_the_seed(client: openai.OpenAI) -> None:
    texts = [
        ask(client, temperature=1.5, seed=seed, max_tokens=6).choices[0].message.content
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_a_stop_string_ends_the_answer(client: openai.OpenAI, assistant: Assistant) -> None:
    text = said(assistant).text
    reply = ask(client, stop=[text[9:12]])
    assert reply.choices[0].message.content == text[: text.index(text[9:12])]
    assert reply.choices[0].finish_reason == "stop"


def test_logprobs_come_with_every_token(client: openai.OpenAI) -> None:
    content = ask(client, logprobs=True, top_logprobs=3, max_tokens=5).choices[0].logprobs.content
    assert len(content) == 5
    for one in content:
        assert one.logprob <= 0
        assert [top.logprob for top in one.top_logprobs] == sorted(
            (top.logprob for top in one.top_logprobs), reverse=True
        )
        assert one.top_logprobs[0].bytes == one.bytes  # greedy


def test_completions_have_their_own_form(client: openai.OpenAI) -> None:
    reply = client.completions.create(model="fedpt", prompt="The lamp", logprobs=2, max_tokens=6)
    choice = reply.choices[0]
    assert choice.logprobs is not None
    assert len(choice.logprobs.tokens or []) == reply.usage.completion_tokens  # type: ignore[union-attr]
    streamed = client.completions.create(
        model="fedpt", prompt="The lamp", max_tokens=6, stream=True
    )
    assert "".join(part.choices[0].text for part in streamed) == choice.text


def test_a_json_schema_is_kept_to(client: openai.OpenAI) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "room", "schema": ROOM}}
    text = ask(client, response_format=wanted, max_tokens=200).choices[0].message.content
    jsonschema.validate(json.loads(text), ROOM)


def test_a_schema_is_kept_to_while_sampling_steered_in_a_stream(client: openai.OpenAI) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "room", "schema": ROOM}}
    chunks = ask(client, model="fedpt-steered", response_format=wanted, temperature=1.0, seed=3,
                 max_tokens=200, stream=True)  # fmt: skip
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    jsonschema.validate(json.loads(text), ROOM)


def test_json_alone_is_an_object(client: openai.OpenAI) -> None:
    wanted = {"type": "json_object"}
    reply = ask(client, response_format=wanted, max_tokens=40)
    assert reply.choices[0].message.content.startswith("{")


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_required_tool_is_called_with_arguments_of_its_schema(
    client: openai.OpenAI, is_streamed: bool
) -> None:
    fields = {"tools": [LAMP, STOP], "tool_choice": "required", "max_tokens": 200}
    call, reason = called(ask(client, **fields, stream=is_streamed), is_streamed=is_streamed)
    assert reason == "tool_calls"
    assert call.id.startswith("call_")
    if call.function.name == "lamp":
        jsonschema.validate(json.loads(call.function.arguments), ROOM)
    else:
        assert (call.function.name, json.loads(call.function.arguments)) == ("stop", {})


def test_a_named_function_is_called_also_when_steered(client: openai.OpenAI) -> None:
    choice = {"type": "function", "function": {"name": "lamp"}}
    reply = ask(client, model="fedpt-steered", tools=[LAMP, STOP], tool_choice=choice,
                max_tokens=200)  # fmt: skip
    [call] = reply.choices[0].message.tool_calls
    jsonschema.validate(json.loads(call.function.arguments), ROOM)


def called(reply: Any, *, is_streamed: bool) -> tuple[Any, str]:
    """The only call, and how the answer ended."""
    if not is_streamed:
        [call] = reply.choices[0].message.tool_calls
        return call, reply.choices[0].finish_reason
    chunks = list(reply)
    [call] = [one for chunk in chunks for one in chunk.choices[0].delta.tool_calls or []]
    return call, chunks[-1].choices[0].finish_reason


def test_a_smart_homes_way_of_asking(client: openai.OpenAI) -> None:
    """As Home Assistant's conversation agents ask: streamed, with tools, a result handed back."""
    talk: Any = [
        {
            "role": "system",
            "content": "You are a voice assistant for a home. Areas: kitchen, hall.",
        },
        {"role": "user", "content": [{"type": "text", "text": "Turn on the kitchen lamp"}]},
    ]
    fields: Any = {"messages": talk, "stream": True, "temperature": 1.0, "top_p": 1.0, "seed": 1,
        "tools": [LAMP], "max_completion_tokens": 200, "user": "01JHOME", "store": False,
        "parallel_tool_calls": False, "stream_options": {"include_usage": True}}  # fmt: skip
    choice = {"type": "function", "function": {"name": "lamp"}}
    *chunks, last, usage = ask(client, **fields, tool_choice=choice)
    [call] = [one for chunk in chunks for one in chunk.choices[0].delta.tool_calls or []]
    assert last.choices[0].finish_reason == "tool_calls"
    assert usage.usage.completion_tokens > 0
    talk.append({"role": "assistant", "content": None, "tool_calls": [call.model_dump()]})
    talk.append({"role": "tool", "tool_call_id": call.id, "content": '{"success": true}'})
    *chunks, last, _ = ask(client, **fields, tool_choice="none")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def test_models_are_listed(client: openai.OpenAI) -> None:
    listed = client.models.list()
    assert [one.id for one in listed] == ["fedpt", "fedpt-local", "fedpt-steered"]
    assert client.models.retrieve("fedpt-local").owned_by == "fedpt"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"model": "gpt-4o"}, (openai.NotFoundError, "model_not_found", "no model 'gpt-4o'")),
        ({"temperature": -1}, (openai.BadRequestError, None, "temperature: expected")),
        ({"messages": [{"role": "user", "content": "word " * 3000}]},
         (openai.BadRequestError, "context_length_exceeded", "the context holds 1536")),
        ({"messages": [{"role": "user", "content": " "}]},
         (openai.BadRequestError, "usage", "the question is empty")),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema":
         {"$ref": "#/$defs/none"}}}},
         (openai.BadRequestError, None, "cannot be made a grammar")),
    ],
)  # fmt: skip
def test_refusals_are_openais_also_for_streams(
    client: openai.OpenAI, fields: Any, expected: tuple[Any, str | None, str], is_streamed: bool
) -> None:
    kind, code, text = expected
    with pytest.raises(kind, match=text) as caught:
        ask(client, **fields, stream=is_streamed)
    assert caught.value.code == code


def test_half_a_surrogate_pair_is_no_obstacle(api: RunningApi) -> None:
    body = rb'{"messages": [{"role": "user", "content": "\ud800 lamp"}]}'
    assert api.post("/v1/chat/completions", content=body).status_code in (200, 400)
    assert api.get("/health").status_code == 200


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_client_that_hangs_up_stops_the_work(
    client: openai.OpenAI, assistant: Assistant, api: RunningApi, is_streamed: bool
) -> None:
    before = hang_ups(api)
    # a grammar that never ends
    wanted = {"type": "json_schema", "json_schema": {"name": "long", "schema":
              {"type": "array", "items": {"type": "boolean"}, "minItems": 400}}}  # fmt: skip
    fields = {"response_format": wanted, "max_tokens": 1400}
    if is_streamed:
        stream = ask(client, **fields, stream=True)
        next(stream)
        stream.close()
    else:
        with pytest.raises(openai.APITimeoutError):
            ask(client.with_options(timeout=0.15), **fields)
    ends_at = time.monotonic() + WAIT_S
    while assistant.is_answering or hang_ups(api) == before:
        assert time.monotonic() < ends_at, "the work goes on"
        time.sleep(0.01)


def hang_ups(api: RunningApi) -> str:
    lines = api.get("/metrics").text.splitlines()
    return next(line for line in lines if line.startswith("fedpt_assistant_hang_ups_total"))


def test_a_question_too_many_is_told_when_to_come_back(tmp_path: Path) -> None:
    assistant = ScriptedAssistant()
    assistant.go_on.clear()
    with (
        running_api(assistant, tmp_path, most_waiting=0) as api,
        openai.OpenAI(base_url=f"{api.url}/v1", api_key="x", max_retries=0) as client,
    ):
        running = ask(client, stream=True)
        next(running)
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client)
        assert caught.value.response.headers["retry-after"] == "5"
        assistant.go_on.set()
        assert list(running)
        assert ask(client).choices[0].message.content == "Grüße."


def test_a_fault_in_mid_answer_ends_the_stream_with_an_error(tmp_path: Path) -> None:
    class Broken(ScriptedAssistant):
        def answer(self, question: Question) -> Any:
            yield from list(super().answer(question))[:1]
            raise ZeroDivisionError("our own bug")

    with (
        running_api(Broken(), tmp_path) as api,
        openai.OpenAI(base_url=f"{api.url}/v1", api_key="x", max_retries=0) as client,
    ):
        with pytest.raises(openai.APIError, match="the device's log says why"):
            list(ask(client, stream=True))
        with pytest.raises(openai.InternalServerError):
            ask(client)


def test_a_device_that_shares_nothing_answers_alone_and_says_so(tmp_path: Path) -> None:
    assistant = ScriptedAssistant()
    never = AssistantSettings(share_questions="never")
    with (
        running_api(assistant, tmp_path, assistant_settings=never) as api,
        openai.OpenAI(base_url=f"{api.url}/v1", api_key="x", max_retries=0) as client,
    ):
        reply = ask(client, model="fedpt-steered")
        assert "fedpt_assistant_fallbacks_total 1.0" in api.get("/metrics").text
    assert (reply.fedpt["mode"], assistant.asked[0].mode) == ("local", "local")
    assert reply.fedpt["fallback"] == "questions stay on this device (share_questions = never)"
