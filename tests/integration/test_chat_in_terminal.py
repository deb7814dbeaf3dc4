"""`fedpt chat` as a person sees it: a real process in a pseudo terminal, a real local API."""

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.data.store import DataStore
from tests.fakes.served_assistant import ServedDevice, served_device
from tests.fakes.terminal import CTRL_C, CTRL_D, UP, Terminal

pytestmark = pytest.mark.slow

CHAT = (sys.executable, "-m", "fedpt.cli", "chat")


@pytest.fixture
def device(tmp_path: Path) -> Iterator[ServedDevice]:
    with served_device(tmp_path) as one:
        yield one


@pytest.fixture
def terminal(device: ServedDevice, tmp_path: Path) -> Iterator[Terminal]:
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    with Terminal([*CHAT, "--config", device.config], environment=environment) as one:
        assert "kitchen. /help lists the commands" in one.expect("> ")
        yield one


def test_a_conversation_with_all_that_people_do(
    terminal: Terminal, device: ServedDevice, tmp_path: Path
) -> None:
    """One process, for starting one takes a second."""
    terminal.type("Hello\n")
    assert "of this question would go to the coordinator" in terminal.expect("conversation: ")
    terminal.type("always\n")
    assert "You said: Hello" in terminal.expect("\n> ")

    why = terminal.say("/why")
    assert "steered by the large model" in why
    assert "31 tokens of question and answer" in why

    answer = terminal.say("all alone")
    assert "[1 of 2 tokens without the large model: the coordinator is silent]" in answer
    terminal.say("/why")
    assert "\x1b[1;36mYou said: " in terminal.raw  # steered parts are marked
    assert "the board alone, nothing leaves it" in terminal.say("/mode local")

    terminal.type("in two \\\n")
    terminal.expect("\n  ")
    assert "You said: in two \nlines" in terminal.say("lines")

    assert "noted: 1 examples" in terminal.say("/teach Two it is.")
    terminal.type("/teach\n")
    assert "to the question: in two" in terminal.expect("better answer: ")
    assert "noted: 2 examples" in terminal.say("Three.")
    assert [one.answer for one in DataStore(device.data).usable().values()] == [
        "Two it is.",
        "Three.",
    ]

    refusal = terminal.say("too long")
    assert "the context holds 64" in refusal
    assert "/reset begins a new one" in refusal
    terminal.say("still here")
    turns = [one.content for one in device.assistant.asked[-1].messages]
    assert turns[0] == "Hello"
    assert "too long" not in turns

    assert "did you mean /reset?" in terminal.say("/rest")
    assert "0.7" in terminal.say("/set temperature 0.7")
    assert "/teach [ANSWER]" in terminal.say("/help")
    saved = tmp_path / "talk.json"
    assert f"saved: {saved}" in terminal.say(f"/save {saved}")
    assert json.loads(saved.read_bytes())["messages"][0] == {"role": "user", "content": "Hello"}
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert "a new conversation" in terminal.say("/reset")
    terminal.type("/quit\n")
    assert terminal.end() == 0


def test_ctrl_c_stops_the_answer_here_and_on_the_device_and_nothing_else(
    terminal: Terminal, device: ServedDevice
) -> None:
    terminal.say("/mode local")
    terminal.type("slowly\n")
    terminal.expect("er, er, ")
    terminal.type(CTRL_C)
    assert "[stopped]" in terminal.expect("\n> ")
    assert device.assistant.has_stopped.wait(10)
    assert "You said: and now?" in terminal.say("and now?")
    turns = device.assistant.asked[-1].messages
    assert [one.role for one in turns] == ["user", "assistant", "user"]
    assert turns[1].content.startswith("Well, er, ")

    terminal.type("never sent")
    terminal.expect("never sent")
    terminal.interrupt_line()
    terminal.type(CTRL_D)
    assert terminal.end() == 0
    assert "Traceback" not in terminal.text
    assert len(device.assistant.asked) == 2


def test_ctrl_c_before_the_first_word_gives_the_line_back(terminal: Terminal) -> None:
    terminal.say("/mode local")
    terminal.type("silently\n")
    terminal.expect("\u280b")  # the spinner
    terminal.type(CTRL_C)
    assert "[stopped]" in terminal.expect("\n> ")
    terminal.type(CTRL_D)
    assert terminal.end() == 0


def test_what_was_typed_comes_back_in_the_next_chat(
    terminal: Terminal, device: ServedDevice, tmp_path: Path
) -> None:
    terminal.say("/mode local")
    terminal.say("Hello again")
    terminal.type(CTRL_D)
    assert terminal.end() == 0
    history = tmp_path / "fedpt" / "chat-history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    before = history.read_text()
    assert before.splitlines() == ["/mode local", "Hello again"]

    environment = {"XDG_STATE_HOME": str(tmp_path)}
    local = ("--config", device.config, "--mode", "local")
    with Terminal([*CHAT, *local], environment=environment) as later:
        later.expect("> ")
        later.type(f"{UP}\n")
        assert "You said: Hello again" in later.expect("\n> ")
    with Terminal([*CHAT, *local, "--no-history"], environment=environment) as private:
        private.expect("> ")
        private.say("a secret")
    assert "a secret" not in history.read_text()


def _piped(*arguments: object, lines: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CHAT, *map(str, arguments)],
        input=lines,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_from_a_pipe_only_answers_come_out(device: ServedDevice) -> None:
    result = _piped("--config", device.config, lines="one\n/set seed 1\ntwo\n")
    assert result.returncode == 0
    assert [line for line in result.stdout.splitlines() if "said" in line] == [
        "You said: one",
        "You said: two",
    ]
    assert "\x1b" not in result.stdout + result.stderr
    assert result.stderr.count("the board answers alone: /mode steered") == 1
    assert {question.mode for question in device.assistant.asked} == {"local"}


@pytest.mark.parametrize("bad", ["/nonsense", "too long"])
def test_a_script_ends_with_the_first_line_that_cannot_be_done(
    device: ServedDevice, bad: str
) -> None:
    result = _piped("--config", device.config, "--mode", "local", lines=f"one\n{bad}\ntwo\n")
    assert (result.returncode, result.stdout) == (2, "You said: one\n")
    assert result.stderr.splitlines()[-1].startswith("fedpt: ")
