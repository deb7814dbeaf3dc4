import io
from pathlib import Path

import pytest

from edge_runtime.chat.line_editor import PipeLines, completion, history_file
from fedpt.errors import UsageError


class _Pipe(io.StringIO):
    """Standard input, as bytes too."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.buffer = io.BytesIO(content)


def test_a_pipe_is_read_line_by_line_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", _Pipe("Grüße\r\none \\\ntwo\n\nlast".encode()))
    lines = PipeLines()
    assert [lines.read("> ") for _ in range(4)] == ["Grüße", "one \ntwo", "", "last"]
    with pytest.raises(EOFError):
        lines.read("> ")


def test_a_pipe_that_is_not_utf8_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", _Pipe(b"a\xff\n"))
    with pytest.raises(UsageError, match="not UTF-8"):
        PipeLines().read("> ")


def test_the_tab_key_completes_commands_only() -> None:
    assert [completion("/s", number) for number in range(4)] == [
        "/system ",
        "/set ",
        "/save ",
        None,
    ]
    assert completion("", 0) is completion("Tu", 0) is None


def test_the_history_is_in_the_users_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/var/me")
    assert history_file() == Path("/var/me/fedpt/chat-history")
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/no/place")
    assert history_file() == Path.home() / ".local/state/fedpt/chat-history"
