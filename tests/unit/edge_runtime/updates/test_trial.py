"""A release that does not work is found out before it is used."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.updates import canary
from edge_runtime.updates.canary import CANARY_TEXT, Score, require_no_worse, score
from edge_runtime.updates.trial import Trial, try_release
from fedpt.drivers.llama import LlamaModel
from fedpt.errors import ReleaseError
from fedpt.gguf_file import read_gguf, weights_sha256
from fedpt.proxy_tuning import Logits
from tests.fakes.raw_llama import llama_logits
from tests.fakes.releases import KEY, OTHER_KEY, manifest, trust
from tests.fakes.tiny_federation import TinyFederation

pytestmark = pytest.mark.llama


def attempt(kind: str, folder: Path, tiny: TinyFederation, **changes) -> None:
    weights = weights_sha256(read_gguf(tiny.small))
    usual = {"small": tiny.small, "adapter": None, "tolerance": 0.25}
    stated = changes.pop("base_weights", weights)
    one = manifest(kind, base_weights=stated)
    try_release(Trial(manifest=one, folder=folder, **{**usual, **changes}))


def test_the_canarys_nll_is_that_of_the_model(tiny: TinyFederation) -> None:
    with LlamaModel(tiny.small) as model:
        tokens = model.tokenize(CANARY_TEXT, special=False)[:384]
        ours = score(model, CANARY_TEXT)
        vocabulary = model.vocabulary_size
    logits: Logits = llama_logits(tiny.small, tokens)[:, :vocabulary].astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = -logs[np.arange(len(tokens) - 1), tokens[1:]].mean()
    assert ours.nll == pytest.approx(expected, abs=0.02)


def test_a_good_model_passes(tiny: TinyFederation, tmp_path: Path) -> None:
    shutil.copyfile(tiny.small, tmp_path / "model.gguf")
    (tmp_path / "canary.txt").write_text("Turn on the lamp in the kitchen.")
    attempt("model", tmp_path, tiny)


def test_a_truncated_model_is_refused(tiny: TinyFederation, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(tiny.small.read_bytes()[:-1000])
    with pytest.raises(ReleaseError, match=r"the model release does not work: .*truncated"):
        attempt("model", tmp_path, tiny)


def test_a_model_of_other_weights_than_stated_is_refused(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    shutil.copyfile(tiny.large, tmp_path / "model.gguf")
    with pytest.raises(ReleaseError, match="base model"):
        attempt("model", tmp_path, tiny)


def test_a_model_with_weights_that_are_not_finite_is_refused(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    content = bytearray(tiny.small.read_bytes())
    tensor = read_gguf(tiny.small).tensors["blk.0.ffn_down.weight"]
    content[tensor.offset : tensor.offset + tensor.size_bytes] = b"\xff" * tensor.size_bytes
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(ReleaseError, match="nll on the canary text is nan"):
        attempt("model", tmp_path, tiny)


def test_a_model_much_worse_than_the_one_in_use_is_refused(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    shutil.copyfile(tiny.large, tmp_path / "model.gguf")
    weights = weights_sha256(read_gguf(tiny.large))
    attempt("model", tmp_path, tiny, base_weights=weights, tolerance=9.0)
    with pytest.raises(ReleaseError, match="what is in use has"):
        attempt("model", tmp_path, tiny, base_weights=weights, tolerance=-0.5)


def test_a_damaged_model_in_use_is_no_measure(tiny: TinyFederation, tmp_path: Path) -> None:
    shutil.copyfile(tiny.small, tmp_path / "model.gguf")
    attempt("model", tmp_path, tiny, small=tmp_path / "missing.gguf")


@pytest.mark.parametrize("nll", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_refused_whatever_was_before(nll: float) -> None:
    with pytest.raises(ReleaseError, match="nll on the canary"):
        require_no_worse(Score(nll, "new"), None, tolerance=1.0)


def test_scores_of_one_vocabulary_are_compared_and_others_not() -> None:
    require_no_worse(Score(1.25, "v"), Score(1.0, "v"), tolerance=0.25)
    require_no_worse(Score(9.0, "w"), Score(1.0, "v"), tolerance=0.25)
    with pytest.raises(ReleaseError, match=r"is 1\.260; what is in use has 1\.000, and 25% more"):
        require_no_worse(Score(1.26, "v"), Score(1.0, "v"), tolerance=0.25)


def test_an_empty_answer_is_refused(tiny: TinyFederation, monkeypatch: pytest.MonkeyPatch) -> None:
    with LlamaModel(tiny.small) as model:
        canary.require_answer(model)
        monkeypatch.setattr(model, "is_end", lambda _token: True)
        with pytest.raises(ReleaseError, match="empty answer"):
            canary.require_answer(model)


def test_a_tokenizer_that_loses_text_is_refused(
    tiny: TinyFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LlamaModel(tiny.small) as model:
        canary.require_round_trip(model, CANARY_TEXT)
        monkeypatch.setattr(model, "text", lambda _tokens: "other")
        with pytest.raises(ReleaseError, match="its tokenizer makes 'other' of"):
            canary.require_round_trip(model, CANARY_TEXT)


def test_a_canary_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "canary.txt").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ReleaseError, match="cannot read"):
        canary.read_canary(tmp_path / "canary.txt")


def test_a_good_adapter_passes_beside_another_one(tiny: TinyFederation, tmp_path: Path) -> None:
    shutil.copyfile(tiny.adapter_blob, tmp_path / "adapter.safetensors")
    attempt("adapter", tmp_path, tiny, tolerance=9.0)
    attempt("adapter", tmp_path, tiny, adapter=tiny.adapter_blob, tolerance=0.01)
    attempt("adapter", tmp_path, tiny, adapter=tmp_path / "missing", tolerance=9.0)


def test_an_adapter_for_another_model_is_refused(tiny: TinyFederation, tmp_path: Path) -> None:
    shutil.copyfile(tiny.adapter_blob, tmp_path / "adapter.safetensors")
    with pytest.raises(ReleaseError, match=r"the adapter release does not work: .*base model"):
        attempt("adapter", tmp_path, tiny, small=tiny.large)


def test_an_adapter_much_worse_than_none_is_refused(tiny: TinyFederation, tmp_path: Path) -> None:
    shutil.copyfile(tiny.adapter_blob, tmp_path / "adapter.safetensors")
    with pytest.raises(ReleaseError, match="what is in use has"):
        attempt("adapter", tmp_path, tiny, tolerance=-0.9)


def test_damaged_and_missing_adapters_are_refused(tiny: TinyFederation, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="cannot read"):
        attempt("adapter", tmp_path, tiny)
    (tmp_path / "adapter.safetensors").write_bytes(b"no adapter")
    with pytest.raises(ReleaseError, match="does not work"):
        attempt("adapter", tmp_path, tiny)


def test_keys_must_leave_a_key_for_the_next_keys(tiny: TinyFederation, tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    path.write_bytes(trust(KEY, OTHER_KEY).to_json())
    attempt("keys", tmp_path, tiny)
    path.write_bytes(trust(kinds=("model", "adapter")).to_json())
    with pytest.raises(ReleaseError, match="no key that may sign the next keys"):
        attempt("keys", tmp_path, tiny)
    path.write_bytes(b"{}")
    with pytest.raises(ReleaseError, match="not a file of trusted keys"):
        attempt("keys", tmp_path, tiny)
    path.unlink()
    with pytest.raises(ReleaseError, match=r"has no trust\.json"):
        attempt("keys", tmp_path, tiny)
