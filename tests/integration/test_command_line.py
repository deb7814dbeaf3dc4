"""The commands as people call them: answers that equal the reference, errors in one line."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from converters.model_to_gguf import convert_model
from fedpt.chat import encode_prompt
from fedpt.drivers.llama import LlamaModel
from fedpt.proxy_tuning import PLAIN, steer_logits
from tests.fakes.tiny_federation import Reference, TinyFederation
from tests.fakes.tiny_models import make_tiny_llama

pytestmark = [pytest.mark.llama, pytest.mark.slow]


def _fedpt(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fedpt.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _fails(code: int, *arguments: object) -> str:
    """The one line that a failing command leaves."""
    result = _fedpt(*arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr.startswith("fedpt: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture(scope="module")
def reference(tiny: TinyFederation) -> Reference:
    return Reference(tiny)


@pytest.mark.parametrize("question", ["Turn on the lamp", "Öffne die Küche", "What rings? 🔔"])
def test_a_steered_answer_is_token_for_token_that_of_plain_torch(
    tiny: TinyFederation, reference: Reference, question: str
) -> None:
    """One model after the other, one token at a time, large + (expert - antiexpert)."""
    with LlamaModel(tiny.small, vocabulary_only=True) as model:
        tokens = list(encode_prompt(model, question))
        answer: list[int] = []
        while len(answer) < 16:
            token = int(np.argmax(steer_logits(reference.rows([*tokens, *answer]), PLAIN)[-1]))
            if model.is_end(token):
                break
            answer.append(token)
        expected = model.text(answer)
    result = _fedpt(
        *("ask", question, "--small", tiny.small, "--adapter", tiny.adapter_gguf),
        *("--large", tiny.large, "--max-tokens", 16, "--json"),
    )
    got = json.loads(result.stdout)
    assert (got["text"], got["tokens"]) == (expected, len(answer))
    assert got["steered_tokens"] == len(answer)


def test_a_question_can_come_from_a_pipe(tiny: TinyFederation) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "fedpt.cli", "ask", "-", "--small", tiny.small, "--max-tokens", "4"],
        input="Turn on the lamp",
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.endswith("\n")


def test_eval_scores_all_ways_side_by_side(tiny: TinyFederation) -> None:
    result = _fedpt(
        *("eval", "--small", tiny.small, "--adapter", tiny.adapter_folder, "--large", tiny.large),
        *("--data", tiny.data, "--answer-tokens", 8, "--json"),
    )
    scores = json.loads(result.stdout)["scores"]
    assert list(scores) == ["large", "antiexpert", "expert", "steered", "steered_calibrated"]
    assert scores["steered_calibrated"]["nll"] <= min(
        scores["expert"]["nll"], scores["steered"]["nll"]
    )


def test_a_missing_model_is_named(tiny: TinyFederation) -> None:
    assert "no such model file: /nowhere.gguf" in _fails(1, "ask", "hi", "--small", "/nowhere.gguf")


def test_a_truncated_model_is_told_from_a_whole_one(tiny: TinyFederation, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny.small.read_bytes()[:-1000])
    assert "truncated" in _fails(1, "ask", "hi", "--small", cut)


def test_an_adapter_for_another_base_is_refused(tiny: TinyFederation) -> None:
    line = _fails(1, "ask", "hi", "--small", tiny.large, "--adapter", tiny.adapter_gguf)
    assert "was trained on the base model" in line


def test_models_of_different_vocabularies_are_both_named(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    convert_model(make_tiny_llama(tmp_path / "m", vocabulary=300), tmp_path / "other.gguf")
    line = _fails(1, "ask", "hi", "--small", tiny.small, "--large", tmp_path / "other.gguf")
    assert "384 tokens" in line
    assert "300 tokens" in line
    assert "first difference is token" in line


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "holds no examples"),
        ('{"instruction": "a", "response": "b"}\n{"instruction": ', "line 2"),
        ('{"instruction": "a"}', "line 1"),
    ],
)
def test_bad_data_is_told_by_its_line(
    tiny: TinyFederation, tmp_path: Path, content: str, complaint: str
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(content)
    models = ("--small", tiny.small, "--large", tiny.large)
    assert complaint in _fails(1, "eval", *models, "--data", data)


def _device_config(tiny: TinyFederation, folder: Path, more: str = "") -> Path:
    config = folder / "device.toml"
    config.write_text(
        f'name = "board"\nsmall = "{tiny.small}"\ndata = "{tiny.store}"\nstate_dir = "state"\n'
        f"connect_timeout_s = 2\n{more}"
    )
    return config


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_an_unknown_setting_is_refused(tiny: TinyFederation, tmp_path: Path) -> None:
    config = _device_config(tiny, tmp_path, "colour = 'red'\n")
    assert "colour: unknown setting" in _fails(2, "device", "run", "--config", config)


def test_a_broker_that_is_not_there_is_told_with_its_address(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    config = _device_config(tiny, tmp_path, "[broker]\nport = 1\n")
    result = _fedpt("device", "run", "--config", config)
    assert result.returncode == 1
    assert "cannot reach the MQTT broker at 127.0.0.1:1" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_port_in_use_is_told(tiny: TinyFederation, tmp_path: Path, taken_port: int) -> None:
    config = tmp_path / "coordinator.toml"
    config.write_text(
        f'small = "{tiny.small}"\nlarge = "{tiny.large}"\nevaluation = "{tiny.data}"\n'
        f'public = "{tiny.data}"\nstate_dir = "state"\n[broker]\nport = {taken_port}\n'
    )
    line = _fails(1, "coordinator", "run", "--config", config)
    assert f"127.0.0.1:{taken_port}" in line
    assert "in use" in line
