"""Transformers in the place of llama.cpp: the same rows, from caches that go back."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from coordinator.worker.backends.transformers_large import TransformersTexts
from fedpt.drivers.llama_runs import Run
from fedpt.errors import FedptError, LargeModelError, ModelFileError
from fedpt.proxy_tuning import Logits
from tests.fakes.tiny_federation import LOGIT_TOLERANCE, TinyFederation
from tests.fakes.told_rows import llama_rows

pytestmark = pytest.mark.llama

SIZE = 384
TEXT = list(range(30, 60))


@pytest.fixture
def texts(tiny: TinyFederation) -> TransformersTexts:
    return TransformersTexts(tiny.large_folder, device_map="cpu", size=SIZE, threads=1)


def assert_close(told: Logits | FedptError, expected: Logits) -> None:
    assert not isinstance(told, FedptError)
    np.testing.assert_allclose(told, expected, atol=LOGIT_TOLERANCE)


def test_rows_are_those_of_llama_cpp(texts: TransformersTexts, tiny: TinyFederation) -> None:
    (told,) = texts.evaluate([Run(0, 0, TEXT, 5)])
    assert_close(told, llama_rows(tiny.large, TEXT, 5))


def test_texts_go_on_and_back(texts: TransformersTexts, tiny: TinyFederation) -> None:
    nothing, _ = texts.evaluate([Run(0, 0, TEXT[:20], 0), Run(1, 0, [7, 8], 1)])
    assert isinstance(nothing, np.ndarray)
    assert nothing.shape == (0, SIZE)
    (told,) = texts.evaluate([Run(0, 20, TEXT[20:], 3)])
    assert_close(told, llama_rows(tiny.large, TEXT, 3))
    texts.forget(0, 10)
    back, other = texts.evaluate([Run(0, 10, [9, 9], 2), Run(1, 2, [5], 1)])
    assert_close(back, llama_rows(tiny.large, [*TEXT[:10], 9, 9], 2))
    assert_close(other, llama_rows(tiny.large, [7, 8, 5], 1))


def test_a_text_that_was_forgotten_begins_anew(
    texts: TransformersTexts, tiny: TinyFederation
) -> None:
    texts.evaluate([Run(0, 0, TEXT, 0)])
    texts.forget(0)
    (told,) = texts.evaluate([Run(0, 0, [5, 6], 1)])
    assert_close(told, llama_rows(tiny.large, [5, 6], 1))


def test_a_position_that_is_not_here_fails_alone(texts: TransformersTexts) -> None:
    good, bad = texts.evaluate([Run(0, 0, [5], 1), Run(1, 9, [5], 1)])
    assert isinstance(good, np.ndarray)
    assert isinstance(bad, LargeModelError)


def test_padding_rows_are_cut(tiny: TinyFederation) -> None:
    texts = TransformersTexts(tiny.large_folder, device_map="cpu", size=SIZE - 4, threads=1)
    (told,) = texts.evaluate([Run(0, 0, TEXT, 1)])
    assert_close(told, llama_rows(tiny.large, TEXT, 1)[:, : SIZE - 4])


def test_a_model_with_fewer_rows_than_the_vocabulary_is_refused(tiny: TinyFederation) -> None:
    with pytest.raises(ModelFileError, match="384 rows of logits for a vocabulary of 400"):
        TransformersTexts(tiny.large_folder, device_map="cpu", size=400, threads=1)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_its_files_is_refused_in_one_line(
    missing: str, tmp_path: Path, tiny: TinyFederation
) -> None:
    folder = shutil.copytree(tiny.large_folder, tmp_path / "model")
    (folder / missing).unlink()
    with pytest.raises(ModelFileError, match="transformers cannot load") as caught:
        TransformersTexts(folder, device_map="cpu", size=SIZE, threads=1)
    assert "\n" not in str(caught.value)


def test_code_in_the_folder_is_never_run(tmp_path: Path, tiny: TinyFederation) -> None:
    folder = shutil.copytree(tiny.large_folder, tmp_path / "model")
    ran = tmp_path / "ran"
    (folder / "modeling_mine.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Mine: ...\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "modeling_mine.Mine"}}
    config["auto_map"]["AutoConfig"] = "modeling_mine.Mine"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match="transformers cannot load"):
        TransformersTexts(folder, device_map="cpu", size=SIZE, threads=1)
    assert not ran.exists()
