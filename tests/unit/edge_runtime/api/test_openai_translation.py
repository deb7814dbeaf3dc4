import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.api.api_errors import ApiError
from edge_runtime.api.openai_messages import ChatRequest, CompletionRequest
from edge_runtime.api.openai_translation import (
    Asked,
    DeviceTraits,
    chat_to_asked,
    read_request,
    text_to_asked,
)
from edge_runtime.consent import SharePolicy
from fedpt.chat import ChatMessage
from fedpt.decoding.sampling import GREEDY, Sampling

HELLO = [{"role": "user", "content": "Hello?"}]
LAMP = {"type": "function", "function": {"name": "lamp", "parameters": {"type": "object"}}}
STOP = {"type": "function", "function": {"name": "stop"}}


def deep(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"items": value}
    return value


def traits(policy: SharePolicy = "ask", template: str = "{{ tools }}") -> DeviceTraits:
    return DeviceTraits(template, "", policy, has_large=True, to_grammar=json.dumps)


def asked(body: Any, policy: SharePolicy = "ask", template: str = "{{ tools }}") -> Asked:
    content = json.dumps({"messages": HELLO, **body}).encode()
    return chat_to_asked(read_request(content, ChatRequest), traits(policy, template))


def completed(body: Any) -> Asked:
    content = json.dumps({"prompt": "Once", **body}).encode()
    return text_to_asked(read_request(content, CompletionRequest), traits())


def refused(body: Any, ask: Any = asked) -> ApiError:
    with pytest.raises(ApiError) as caught:
        ask(body)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_plain_question_is_greedy_local_and_of_the_devices_length() -> None:
    question = asked({}).question
    assert question.messages == (ChatMessage(role="user", content="Hello?"),)
    assert (question.sampling, question.mode, question.max_tokens) == (GREEDY, "local", None)
    assert question.top_logprobs is None


def test_sampling_fields_are_taken_over() -> None:
    fields = {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05,
              "repetition_penalty": 1.1, "seed": 7}  # fmt: skip
    assert asked(fields).question.sampling == Sampling(**fields)


@pytest.mark.parametrize(("seed", "ours"), [(0, 2**53), (-1, 2**53 - 1), (2**53, 2**53), (5, 5)])
def test_every_seed_is_one_of_ours_and_never_chance(seed: int, ours: int) -> None:
    assert asked({"seed": seed}).question.sampling.seed == ours


def test_vllms_word_for_no_top_k_is_understood() -> None:
    assert asked({"top_k": -1}).question.sampling.top_k == 0


def test_null_is_absence_and_unknown_fields_are_ignored() -> None:
    body = {"stop": None, "tools": None, "temperature": None, "user": "me", "store": False}
    assert asked(body) == asked({})


def test_the_newer_name_of_the_length_goes_first() -> None:
    assert asked({"max_tokens": 5}).question.max_tokens == 5
    assert asked({"max_tokens": 5, "max_completion_tokens": 6}).question.max_tokens == 6


@pytest.mark.parametrize("stop", ["END", ["END"]])
def test_a_stop_string_may_stand_alone(stop: object) -> None:
    assert asked({"stop": stop}).question.stop == ("END",)


def test_text_parts_are_joined_and_developers_are_the_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    [message] = asked({"messages": [{"role": "developer", "content": parts}]}).question.messages
    assert message == ChatMessage(role="system", content="a\nb")


@pytest.mark.parametrize(
    ("body", "mode", "policy"),
    [
        ({"model": "fedpt"}, "local", "ask"),
        ({"model": "fedpt-steered"}, "steered", "ask"),
        ({"fedpt": {"mode": "steered"}}, "steered", "ask"),
        ({"model": "fedpt-local"}, "local", "always"),
        ({}, "steered", "always"),
        ({"model": "fedpt-steered"}, "local", "never"),
    ],
)
def test_model_and_field_choose_the_mode(body: Any, mode: str, policy: SharePolicy) -> None:
    assert asked(body, policy).question.mode == mode


def test_a_mode_that_is_refused_is_told() -> None:
    assert "share_questions = never" in asked({"model": "fedpt-steered"}, "never").note


def test_earlier_calls_reach_the_template_as_objects() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "lamp", "arguments": '{"a": 1}'}}
    talk = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ]
    _, called, result = asked({"messages": talk}).question.messages
    assert called.tool_calls[0]["function"] == {"name": "lamp", "arguments": {"a": 1}}
    assert (result.role, result.tool_call_id) == ("tool", "c1")


def test_tools_are_offered_and_looked_for() -> None:
    both = asked({"tools": [LAMP, STOP]})
    assert both.tools == {"lamp", "stop"}
    assert len(both.question.tools) == 2
    assert both.question.grammar == ""


def test_no_tool_choice_means_no_tools() -> None:
    nothing = asked({"tools": [LAMP], "tool_choice": "none"})
    assert (nothing.tools, nothing.question.tools) == (frozenset(), ())


def test_a_required_call_is_made_sure_by_grammar() -> None:
    grammar = json.loads(asked({"tools": [LAMP, STOP], "tool_choice": "required"}).question.grammar)
    assert [one["properties"]["name"]["const"] for one in grammar["anyOf"]] == ["lamp", "stop"]


def test_a_named_function_is_the_only_one() -> None:
    choice = {"type": "function", "function": {"name": "stop"}}
    named = asked({"tools": [LAMP, STOP], "tool_choice": choice})
    assert named.tools == {"stop"}
    assert "lamp" not in named.question.grammar


@pytest.mark.parametrize(
    ("wanted", "grammar"),
    [
        ({"type": "text"}, ""),
        ({"type": "json_object"}, '{"type": "object"}'),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": {"const": 1}}},
         '{"const": 1}'),
    ],
)  # fmt: skip
def test_a_response_format_becomes_a_grammar(wanted: object, grammar: str) -> None:
    assert asked({"response_format": wanted}).question.grammar == grammar


def test_a_format_beside_tools_leaves_room_for_both() -> None:
    body = {"tools": [LAMP], "response_format": {"type": "json_object"}}
    assert len(json.loads(asked(body).question.grammar)["anyOf"]) == 2


@pytest.mark.parametrize(("fields", "count"), [({}, None), ({"logprobs": True}, 0),
    ({"logprobs": True, "top_logprobs": 3}, 3), ({"logprobs": False}, None)])  # fmt: skip
def test_logprobs_are_asked_for(fields: Any, count: int | None) -> None:
    assert asked(fields).question.top_logprobs == count


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
         "messages[0].content[0].type"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [LAMP], "tool_choice": {"type": "function", "function": {"name": "x"}}},
         "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"fedpt": {"mode": "magic"}}, "fedpt.mode"),
        ({"model": "fedpt-local", "fedpt": {"mode": "steered"}}, "fedpt.mode"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(body: Any, param: str) -> None:
    error = refused(body)
    assert (error.status, error.param) == (400, param)


def test_an_unknown_model_is_not_found() -> None:
    error = refused({"model": "gpt-4o"})
    assert (error.status, error.code) == (404, "model_not_found")
    assert "fedpt, fedpt-local, fedpt-steered" in str(error)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b'{"messages": 1}'])
def test_a_body_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(ApiError):
        read_request(content, ChatRequest)


def test_a_completion_goes_on_with_a_text() -> None:
    question = completed({"logprobs": 2, "max_tokens": 3}).question
    assert (question.text, question.messages) == ("Once", ())
    assert (question.top_logprobs, question.max_tokens) == (2, 3)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [1, 2]}, "prompt[0]"),
        ({"echo": True}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": True}, "logprobs"),
    ],
)
def test_a_completion_that_cannot_be_is_refused(body: Any, param: str) -> None:
    assert refused(body, completed).param == param


FIELDS = st.sampled_from([*ChatRequest.__struct_fields__, "content", "role", "name", "type",
    "function", "schema", "json_schema", "parameters", "arguments", "text"])  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | FIELDS,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(FIELDS, part, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(FIELDS, JSON, max_size=4))
def test_whatever_a_client_sends_is_answered_or_refused_in_one_line(body: Any) -> None:
    with suppress(ApiError):
        asked(body)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "minItems": 10**9},
        {"properties": {"a": [{"maxLength": 10**30}]}},
        {"type": "string", "pattern": "^a{2,99999999999}$"},
        deep(100),
    ],
)
def test_a_schema_that_asks_too_much_is_refused(schema: Any) -> None:
    tool = {"type": "function", "function": {"name": "lamp", "parameters": schema}}
    assert refused({"tools": [tool]}).param == "tools[0].function.parameters"
    wanted = {"type": "json_schema", "json_schema": {"schema": schema}}
    assert refused({"response_format": wanted}).param == "response_format.json_schema.schema"


def test_arguments_that_are_nested_too_deeply_stay_text() -> None:
    arguments = json.dumps(deep(100))
    call = {"function": {"name": "lamp", "arguments": arguments}}
    talk = [*HELLO, {"role": "assistant", "tool_calls": [call]}]
    _, called = asked({"messages": talk}).question.messages
    assert called.tool_calls[0]["function"] == {"name": "lamp", "arguments": arguments}
