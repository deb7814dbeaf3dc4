import json
from pathlib import Path

import pytest

from edge_runtime.ask_options import decoded, grammar_of, require_characters, stops_of
from fedpt.errors import UsageError

SCHEMA = '{"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}'


@pytest.mark.llama
def test_a_schema_is_the_same_from_a_file_and_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(SCHEMA)
    assert grammar_of(str(tmp_path / "s.json"), None) == grammar_of(SCHEMA, None)
    assert "root ::=" in grammar_of(SCHEMA, None)


def test_a_grammar_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "g.gbnf").write_text('root ::= "yes" | "no"')
    assert grammar_of(None, tmp_path / "g.gbnf") == 'root ::= "yes" | "no"'


def test_without_either_there_is_no_grammar() -> None:
    assert grammar_of(None, None) == ""


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ("/nowhere.json", "no such file: /nowhere.json"),
        ("{", "the schema is not JSON"),
        ("/proc", "cannot read /proc"),
    ],
)
def test_a_schema_that_cannot_be_used_is_told(schema: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        grammar_of(schema, None)


@pytest.mark.parametrize("content", [b"[1]", b"3", b"\xff"])
def test_a_file_that_holds_no_schema_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"s\.json is"):
        grammar_of(str(tmp_path / "s.json"), None)


def test_a_schema_and_a_grammar_are_one_too_many() -> None:
    with pytest.raises(UsageError, match="not both"):
        grammar_of(json.dumps({}), Path("g.gbnf"))


def test_seventeen_stop_strings_are_too_many() -> None:
    assert stops_of(None) == ()
    with pytest.raises(UsageError, match="16 at most"):
        stops_of(["a"] * 17)


def test_text_that_is_not_utf8_is_told_with_its_place() -> None:
    assert decoded("Grüße".encode()) == require_characters("Grüße") == "Grüße"
    with pytest.raises(UsageError, match="not UTF-8 at byte 3"):
        decoded(b"abc\xff")
    with pytest.raises(UsageError, match="not UTF-8 at character 2"):
        require_characters("a\udcff")
