"""Each benchmark runs and tells its figures; how good they are is no test's business."""

import importlib
import json
import os
from pathlib import Path

import pytest

from benchmarks import served_weights, training_memory
from tests.fakes.brokers import mosquitto_path
from tests.fakes.tiny_federation import TinyFederation

pytestmark = [
    pytest.mark.llama,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # transformers' own
]

NEEDS_NETWORK = {"over_a_network", "bytes_per_token"}
NEEDS_BROKER = NEEDS_NETWORK | {"worker_throughput", "loopback_round_trip"}
EXTRA = {
    "over_a_network": ["--round-trips", "20", "--loss", "0"],
    "bytes_per_token": ["--round-trip", "20", "--wide", "600"],
    "worker_throughput": ["--devices", "1", "2", "--steps", "2"],
    "loopback_round_trip": ["--runs", "20"],
}


def run(name: str, tiny: TinyFederation, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    if name in NEEDS_BROKER:
        mosquitto_path()
    if name in NEEDS_NETWORK and (os.geteuid() or not Path("/dev/net/tun").exists()):
        pytest.skip("network namespaces need root")
    models = ["--small", tiny.small, "--adapter", tiny.adapter_gguf, "--large", tiny.large]
    work = ["--data", tiny.data, "--coefficients", "1", "0.7", "0.42", "--tokens", "6"]
    size = ["--prompts", "2", "--runs", "2", "--threads", "1", "--json"]
    arguments = [str(one) for one in [*models, *work, *size, *EXTRA.get(name, [])]]
    importlib.import_module(f"benchmarks.{name}").main(arguments)
    told: dict[str, object] = json.loads(capsys.readouterr().out)
    return told


@pytest.mark.parametrize(
    "name",
    [
        "local_decode",
        "steered_decode",
        "answer_during_training",
        pytest.param("over_a_network", marks=pytest.mark.broker),
        pytest.param("bytes_per_token", marks=pytest.mark.broker),
        pytest.param("worker_throughput", marks=pytest.mark.broker),
        pytest.param("loopback_round_trip", marks=pytest.mark.broker),
    ],
)
def test_it_runs_with_any_models(
    name: str, tiny: TinyFederation, capsys: pytest.CaptureFixture[str]
) -> None:
    told = run(name, tiny, capsys)
    assert told["benchmark"] == name
    assert told["rows"]


def test_adapters_are_judged_on_the_served_file(
    tiny: TinyFederation, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", tiny.data, "--held-out", tiny.data, "--kinds", "Q4_0", "--json"]
    arguments = ["--model", tiny.small, "--runs", "1", "--epochs", "1", *data]
    served_weights.main(list(map(str, arguments)))
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["trained on what is served"] < row["without adapter"]


@pytest.mark.parametrize("real", [False, True])
def test_ways_to_train_are_compared(
    tiny: TinyFederation, capfd: pytest.CaptureFixture[str], real: bool
) -> None:
    size = ["--batch", "2", "--tokens", "16", "--steps", "2", "--threads", "1", "--json"]
    data = ["--data", tiny.data, "--held-out", tiny.data] if real else []
    ways = ["--ways", "plain loop, float32", "mapped"]
    arguments = ["--model", tiny.small, *size, *data, *ways]
    training_memory.main(list(map(str, arguments)))
    plain, ours = json.loads(capfd.readouterr().out)["rows"]
    assert ours["difference"] == pytest.approx(0, abs=2e-3)
    if real:
        assert ours["held-out nll"] == pytest.approx(plain["held-out nll"], rel=1e-3)
