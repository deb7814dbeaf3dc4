"""`fedpt ask` and `fedpt teach` as scripts and people call them: real processes."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.data.store import DataStore
from fedpt.examples import Example
from tests.fakes.served_assistant import ServedDevice, served_device
from tests.fakes.terminal import Terminal
from tests.fakes.tiny_federation import TinyFederation

pytestmark = pytest.mark.slow

FEDPT = (sys.executable, "-m", "fedpt.cli")
SCHEMA = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}, "room": {"enum": ["kitchen", "hall"]}},
    "required": ["on", "room"],
    "additionalProperties": False,
}


def _fedpt(*arguments: object, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FEDPT, *map(str, arguments)],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def device(tmp_path: Path) -> Iterator[ServedDevice]:
    with served_device(tmp_path) as one:
        yield one


@pytest.fixture
def open_device(tmp_path: Path) -> Iterator[ServedDevice]:
    with served_device(tmp_path, more='[assistant]\nshare_questions = "always"\n') as one:
        yield one


# -- what leaves the board -----------------------------------------------------------------------


def test_a_script_that_says_nothing_is_answered_on_the_board_and_told_so(
    device: ServedDevice,
) -> None:
    result = _fedpt("ask", "-", "--config", device.config, text="Grüße?\n")
    assert (result.returncode, result.stdout) == (0, "You said: Grüße?\n")
    assert result.stderr.count("\n") == 1
    assert "--mode steered sends this question's tokens" in result.stderr
    assert device.assistant.asked[0].mode == "local"


@pytest.mark.parametrize(("key", "mode"), [("y", "steered"), ("", "local"), ("n", "local")])
def test_a_person_is_asked_first(device: ServedDevice, key: str, mode: str) -> None:
    with Terminal([*FEDPT, "ask", "Hello", "--config", device.config]) as terminal:
        assert "this question's tokens would go" in terminal.expect("[y/N] ")
        terminal.type(f"{key}\n")
        terminal.expect("You said: Hello\n")
        assert terminal.end() == 0
    assert device.assistant.asked[0].mode == mode


def test_where_the_operator_allows_it_all_facts_say_what_was_sent(
    open_device: ServedDevice,
) -> None:
    result = _fedpt("ask", "all alone", "--config", open_device.config, "--json", "--why")
    facts = json.loads(result.stdout)
    assert (facts["mode"], facts["steps"]["tokens_sent"]) == ("steered", 31)
    assert "left the board       31 tokens of question and answer\n" in result.stderr


def test_a_fallback_is_told_beside_the_answer(open_device: ServedDevice) -> None:
    result = _fedpt("ask", "all alone", "--config", open_device.config)
    assert result.stdout == "You said: all alone\n"
    note = "[1 of 2 tokens without the large model: the coordinator is silent]\n"
    assert result.stderr == note


# -- options ---------------------------------------------------------------------------------------


def test_every_option_reaches_the_device(device: ServedDevice, tmp_path: Path) -> None:
    (tmp_path / "g.gbnf").write_text('root ::= "yes"')
    result = _fedpt(
        *("ask", "Hi", "--config", device.config, "--mode", "local", "--system", "Be brief."),
        *("--temperature", 0.7, "--top-p", 0.9, "--top-k", 40, "--min-p", 0.1, "--seed", 3),
        *("--repetition-penalty", 1.1, "--stop", "a", "--stop", "b", "--max-tokens", 9),
        *("--grammar", tmp_path / "g.gbnf"),
    )
    assert (result.returncode, result.stderr) == (0, "")
    (asked,) = device.assistant.asked
    assert [one.content for one in asked.messages] == ["Be brief.", "Hi"]
    assert (asked.stop, asked.max_tokens, asked.grammar) == (("a", "b"), 9, 'root ::= "yes"')
    chosen = asked.sampling
    assert (chosen.temperature, chosen.top_p, chosen.top_k, chosen.min_p) == (0.7, 0.9, 40, 0.1)
    assert (chosen.repetition_penalty, chosen.seed) == (1.1, 3)


@pytest.mark.llama
def test_with_a_schema_the_answer_is_json_of_it_or_the_command_fails(tiny: TinyFederation) -> None:
    models = ("--small", tiny.small, "--large", tiny.large, "--schema", json.dumps(SCHEMA))
    whole = _fedpt("ask", "Turn on the lamp", *models)
    answer = json.loads(whole.stdout)
    assert whole.returncode == 0
    assert isinstance(answer["on"], bool)
    assert answer["room"] in ("kitchen", "hall")

    cut = _fedpt("ask", "Turn on the lamp", *models, "--max-tokens", 3)
    assert cut.returncode == 1
    assert "ends after 3 tokens and is no whole JSON" in cut.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--top-p", "0.5"], "without --temperature nothing is left to chance"),
        (["--small", "small.gguf"], "either --config"),
        (["too long"], "the context holds 64"),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_exit_code_two(
    device: ServedDevice, arguments: list[str], complaint: str
) -> None:
    result = _fedpt("ask", "--config", device.config, "--mode", "local", *arguments, text="Hi")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("fedpt: ")
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1


def test_ctrl_c_ends_the_command_and_the_devices_work(device: ServedDevice) -> None:
    command = [*FEDPT, "ask", "slowly", "--config", device.config, "--mode", "local"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(6) == b"Well, "
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in complaint
    assert device.assistant.has_stopped.wait(10)


# -- teaching --------------------------------------------------------------------------------------


def test_a_running_device_is_taught(device: ServedDevice) -> None:
    lesson = ("teach", "Good night", "Sleep well.", "--config", device.config)
    assert "noted: 1 examples" in _fedpt(*lesson).stdout
    assert "nothing added" in _fedpt(*lesson).stdout
    assert DataStore(device.data).usable() == {1: Example("Good night", "Sleep well.")}
    refused = _fedpt("teach", "Good night", " ", "--config", device.config)
    assert (refused.returncode, refused.stderr) == (
        2,
        "fedpt: the answer is empty: a lesson has a question and an answer\n",
    )


def test_a_device_that_does_not_run_is_taught_all_the_same(tmp_path: Path) -> None:
    config = tmp_path / "device.toml"
    settings = 'name = "kitchen"\nsmall = "small.gguf"\nstate_dir = "state"\n'
    config.write_text(settings)
    refused = _fedpt("teach", "Good night", "Sleep well.", "--config", config)
    assert refused.returncode == 2
    assert 'set data = "private.db"' in refused.stderr
    config.write_text(f'{settings}data = "private.db"\n')
    taught = _fedpt("teach", "Good night", "Sleep well.", "--config", config)
    assert (taught.returncode, taught.stderr) == (0, "")
    assert DataStore(tmp_path / "private.db").usable() == {1: Example("Good night", "Sleep well.")}
