import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.api.tool_calls import Call, ToolCallReader, read_call

NAMES = frozenset({"turn_on", "HassTurnOff"})
TAGGED = '<tool_call>\n{"name": "turn_on", "arguments": {"room": "Küche"}}\n</tool_call>'
BARE = '{"name": "HassTurnOff", "arguments": {"room": "hall"}}'
KITCHEN = Call("turn_on", '{"room": "Küche"}')
HALL = Call("HassTurnOff", '{"room": "hall"}')


def read(*pieces: str, names: frozenset[str] = NAMES) -> list[str | Call]:
    """The parts of an answer, neighbouring texts joined."""
    reader = ToolCallReader(names)
    parts = [part for piece in pieces for part in reader.feed(piece)] + reader.rest()
    joined: list[str | Call] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (TAGGED, [KITCHEN]),
        (f"\n{BARE}\n", [HALL]),
        (f"{TAGGED}\n{TAGGED}", [KITCHEN, KITCHEN]),
        (f"I do that. {TAGGED} Done.", ["I do that.", KITCHEN, " Done."]),
        (TAGGED.removesuffix("</tool_call>"), [KITCHEN]),
        (f"{BARE}\n{BARE}", [HALL, HALL]),
        ("No need.", ["No need."]),
        ("a < b, <tool_x> and <tool_", ["a < b, <tool_x> and <tool_"]),
        (f"First: {BARE}", [f"First: {BARE}"]),
        ('{"answer": 42} is it', ['{"answer": 42} is it']),
        ("{unquoted}", ["{unquoted}"]),
        ("<tool_call>no JSON</tool_call>", ["<tool_call>no JSON</tool_call>"]),
        (" \n", [" \n"]),
        ("", []),
    ],
)
def test_calls_are_told_from_text(text: str, parts: list[str | Call]) -> None:
    assert read(text) == parts
    assert read(*text) == parts  # character by character


def test_text_goes_through_while_it_cannot_be_a_call() -> None:
    reader = ToolCallReader(NAMES)
    assert reader.feed("The lamp") == ["The lamp"]
    assert reader.feed(" is on <") == [" is on"]
    assert reader.feed("3") == [" <3"]


def test_a_bare_object_is_decided_at_its_end() -> None:
    reader = ToolCallReader(NAMES)
    assert reader.feed(BARE[:-1]) == []
    assert reader.feed("}") == [HALL]


def test_without_functions_all_is_text_at_once() -> None:
    assert ToolCallReader(()).feed(BARE) == [BARE]


@pytest.mark.parametrize(
    "call",
    [
        {"name": "rm"},
        {"name": ["turn_on"]},
        {"name": "turn_on", "arguments": [1]},
        {"name": "turn_on", "arguments": "no JSON"},
        {"arguments": {}},
        ["turn_on"],
        "turn_on",
    ],
)
def test_what_is_no_call_of_an_offered_function_is_none(call: object) -> None:
    assert read_call(json.dumps(call), NAMES) is None


@pytest.mark.parametrize(
    "call",
    [
        {"name": "turn_on", "parameters": {"a": 1}},
        {"name": "turn_on", "arguments": '{"a": 1}'},
        {"type": "function", "function": {"name": "turn_on", "arguments": {"a": 1}}},
    ],
)
def test_other_spellings_of_arguments_are_understood(call: object) -> None:
    assert read_call(json.dumps(call), NAMES) == Call("turn_on", '{"a": 1}')


@pytest.mark.parametrize("text", ['{"name": "turn_on", "arguments": {"a": NaN}}', "[" * 100_000])
def test_json_that_is_none_is_no_call(text: str) -> None:
    assert read_call(text, NAMES) is None


PARTS = st.sampled_from(
    [TAGGED, BARE, "<tool_call>", "</tool_call>", "{", "}", " ", "\n", "<", "a"]
)


@given(st.lists(PARTS, max_size=8), st.data())
def test_how_an_answer_is_cut_does_not_matter(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(*pieces) == read(text)


@given(st.text(alphabet='ab <{}"\n:_'))
def test_an_answer_without_calls_is_unchanged(text: str) -> None:
    assert "".join(str(part) for part in read(*text)) == text
