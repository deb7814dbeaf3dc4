import jsonschema
import pytest

from edge_runtime.api.openai_messages import Function
from edge_runtime.api.tool_prompts import (
    calls_schema,
    description,
    knows_tools,
    prompt_with_tools,
)
from fedpt.chat import ChatMessage
from fedpt.drivers.llama_grammar import schema_to_gbnf

LAMP = Function(
    name="lamp",
    description="Switches a lamp.",
    parameters={
        "type": "object",
        "properties": {"room": {"$ref": "#/$defs/Room"}},
        "required": ["room"],
        "$defs": {"Room": {"enum": ["kitchen", "hall"]}},
    },
)
STOP = Function(name="stop")
USER = ChatMessage(role="user", content="On, please")
CALL = {"id": "c", "type": "function", "function": {"name": "lamp", "arguments": {"room": "hall"}}}
TALK = [
    USER,
    ChatMessage(role="assistant", content="", tool_calls=(CALL,)),
    ChatMessage(role="tool", content="done", tool_call_id="c"),
]
KNOWING = "{% if tools %}{{ tools | tojson }}{% endif %}"
IGNORING = "{% for m in messages %}{{ m.content }}{% endfor %}"


def test_a_template_that_knows_tools_gets_all_as_it_is() -> None:
    prompt = prompt_with_tools(KNOWING, TALK, [LAMP], system="Be kind.")
    assert list(prompt.messages) == TALK
    assert prompt.tools[0]["type"] == "function"


@pytest.mark.parametrize("template", [IGNORING, "", "{{ stools }}"])
def test_other_templates_are_told_from_it(template: str) -> None:
    assert knows_tools(KNOWING)
    assert not knows_tools(template)


def test_for_other_templates_tools_stand_in_the_system_message() -> None:
    prompt = prompt_with_tools(IGNORING, [USER], [LAMP, STOP], system="Be kind.")
    assert prompt.tools == ()
    assert [one.role for one in prompt.messages] == ["system", "user"]
    assert prompt.messages[0].content == f"Be kind.\n\n{description([LAMP, STOP])}"


def test_a_conversations_own_system_message_stands_before_the_tools() -> None:
    talk = [ChatMessage(role="system", content="You are a house."), USER]
    prompt = prompt_with_tools(IGNORING, talk, [STOP], system="Be kind.")
    assert prompt.messages[0].content.startswith("You are a house.\n\nYou may call")
    assert len(prompt.messages) == 2


def test_for_other_templates_earlier_calls_and_results_are_written_out() -> None:
    _, called, result = prompt_with_tools(IGNORING, TALK, [], system="").messages
    assert (
        called.content == '<tool_call>{"name": "lamp", "arguments": {"room": "hall"}}</tool_call>'
    )
    assert (result.role, result.content) == ("user", "<tool_response>\ndone\n</tool_response>")


def test_a_description_says_name_purpose_and_arguments() -> None:
    text = description([LAMP, STOP])
    assert "- lamp: Switches a lamp. Arguments: {" in text
    assert '"enum": ["kitchen", "hall"]' in text
    assert '<tool_call>{"name": "...", "arguments": {...}}</tool_call>' in text


@pytest.mark.parametrize(
    ("call", "is_valid"),
    [
        ({"name": "lamp", "arguments": {"room": "hall"}}, True),
        ({"name": "lamp", "arguments": {"room": "attic"}}, False),
        ({"name": "lamp", "arguments": {}}, False),
        ({"name": "stop", "arguments": {}}, True),
        ({"name": "other", "arguments": {}}, False),
        (["a", "b"], False),
    ],
)
def test_the_schema_of_calls_admits_calls_alone(call: object, is_valid: bool) -> None:
    assert jsonschema.Draft202012Validator(calls_schema([LAMP, STOP])).is_valid(call) is is_valid


def test_the_schema_of_calls_leaves_room_for_an_answer() -> None:
    schema = calls_schema([STOP], otherwise={"$ref": "#/$defs/A", "$defs": {"A": {"const": 1}}})
    assert jsonschema.Draft202012Validator(schema).is_valid(1)


def test_the_schema_of_calls_makes_a_grammar() -> None:
    gbnf = schema_to_gbnf(calls_schema([LAMP, STOP], otherwise={"type": "object"}))
    assert r"\"lamp\"" in gbnf
