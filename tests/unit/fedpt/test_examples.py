"""Three shapes of a line are read; every other line is refused by its number."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedpt.errors import DataFileError, StorageError
from fedpt.examples import Example, read_examples, read_prompts, write_examples

MESSAGES = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "a"},
]
GOOD = '{"instruction": "q", "response": "a"}'

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


def write(folder: Path, *lines: str | bytes) -> Path:
    data = b"\n".join(line.encode() if isinstance(line, str) else line for line in lines)
    (folder / "data.jsonl").write_bytes(data)
    return folder / "data.jsonl"


@pytest.mark.parametrize(
    ("line", "example"),
    [
        ({"instruction": "q", "response": "a", "category": "x"}, Example("q", "a")),
        ({"instruction": "q", "context": "c", "response": "a"}, Example("q\n\nc", "a")),
        ({"instruction": "q", "input": "", "output": "a"}, Example("q", "a")),
        ({"instruction": "q", "input": "c", "output": "a"}, Example("q\n\nc", "a")),
        ({"instruction": "q", "response": "a", "system": "s"}, Example("q", "a", "s")),
        ({"messages": MESSAGES}, Example("q", "a", "s")),
        ({"messages": MESSAGES[1:]}, Example("q", "a")),
    ],
)
def test_every_shape_is_read(tmp_path: Path, line: object, example: Example) -> None:
    assert read_examples(write(tmp_path, json.dumps(line))) == [example]


def test_blank_lines_and_windows_line_ends_are_no_matter(tmp_path: Path) -> None:
    assert len(read_examples(write(tmp_path, "", GOOD + "\r", "  ", GOOD, ""))) == 2


def test_a_line_separator_within_a_text_ends_no_line(tmp_path: Path) -> None:
    path = write(tmp_path, '{"instruction": "one\u2028two", "response": "a"}')
    assert read_examples(path)[0].prompt == "one\u2028two"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("1" * 5000, "not JSON"),
        ("[" * 200_000, "not JSON"),
        ("[1]", "a JSON object was expected, got list"),
        ("null", "a JSON object was expected, got NoneType"),
        ('{"instruction": "q"}', "the answer is missing or empty"),
        ('{"instruction": "q", "response": " "}', "the answer is missing or empty"),
        ('{"instruction": 5, "response": "a"}', "'instruction' is 5, a string was expected"),
        ('{"instruction": "q", "context": null}', "'context' is None"),
        ('{"prompt": "q"}', "no 'instruction' and no 'messages'"),
        ('{"instruction": "\\ud800", "response": "a"}', r"'\\ud800' is half a character"),
        ('{"messages": []}', "'messages' must be a list"),
        ('{"messages": {"role": "user"}}', "'messages' must be a list"),
        ('{"messages": ["q"]}', "'q' is no message"),
        ('{"messages": [{"role": ["user"], "content": "q"}]}', "is no message"),
        ('{"messages": [{"role": "tool", "content": "q"}]}', "is no message"),
        ('{"messages": [{"role": "user", "content": ["q"]}]}', "is no message"),
        (json.dumps({"messages": MESSAGES + MESSAGES}), "two 'system' turns"),
        (json.dumps({"messages": MESSAGES[2:]}), "has no user turn"),
        (json.dumps({"messages": MESSAGES[:2]}), "the answer is missing"),
    ],
)
def test_a_bad_line_is_told_by_its_number(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataFileError, match=rf"data.jsonl, line 3: .*{message}"):
        read_examples(write(tmp_path, GOOD, "", line))


def test_prompts_need_no_answer(tmp_path: Path) -> None:
    path = write(tmp_path, '{"instruction": "q"}', json.dumps({"messages": MESSAGES[:2]}))
    assert read_prompts(path) == [Example("q", ""), Example("q", "", "s")]


@pytest.mark.parametrize("read", [read_examples, read_prompts])
def test_a_file_that_is_none_is_told(tmp_path: Path, read) -> None:
    for path, message in [
        (tmp_path / "none", "no such data file"),
        (tmp_path, "cannot read .*: Is a directory"),
        (write(tmp_path, " "), "write one JSON object a line"),
    ]:
        with pytest.raises(DataFileError, match=message):
            read(path)


def test_a_file_in_another_encoding_is_told_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="line 1: not UTF-8 at byte 3"):
        read_examples(write(tmp_path, "Küche".encode()[:1] + b"xx\xff"))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.builds(Example, text, text, st.just("") | text), min_size=1))
def test_what_is_written_is_read_back(tmp_path: Path, examples: list[Example]) -> None:
    write_examples(tmp_path / "data.jsonl", examples)
    assert read_examples(tmp_path / "data.jsonl") == examples


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary() | st.text().map(lambda line: line.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_examples_or_a_data_file_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.jsonl").write_bytes(content)
    with suppress(DataFileError):
        assert read_examples(tmp_path / "data.jsonl")


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        write_examples(tmp_path / "file" / "data.jsonl", [Example("q", "a")])
