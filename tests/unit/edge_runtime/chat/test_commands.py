import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.chat.commands import COMMANDS, Command, Said, parse
from fedpt.errors import UsageError


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("  Turn on the lamp \n", Said("Turn on the lamp")),
        ("", None),
        ("  ", None),
        ("/why", Command("why")),
        ("/MODE  local", Command("mode", "local")),
        ("/teach  No, {1}: two ", Command("teach", "No, {1}: two")),
        ("/exit", Command("quit")),
        ("/?", Command("help")),
        ("//etc/passwd", Said("/etc/passwd")),
    ],
)
def test_a_line_is_said_or_a_command(line: str, meaning: object) -> None:
    assert parse(line) == meaning


@pytest.mark.parametrize(
    ("line", "hint"),
    [("/rest", "did you mean /reset?"), ("/xyz", "/help lists them"), ("/", "no command /:")],
)
def test_an_unknown_command_is_not_sent_to_the_assistant(line: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line)
    assert hint in str(caught.value)


@given(st.text())
def test_any_line_has_a_meaning_or_a_usage_error(line: str) -> None:
    try:
        meaning = parse(line)
    except UsageError:
        assert line.strip().startswith("/")
    else:
        assert meaning is None or isinstance(meaning, Said) or meaning.name in COMMANDS
