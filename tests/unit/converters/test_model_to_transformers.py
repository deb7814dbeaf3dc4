"""GGUF to transformers folders, judged by transformers itself and by libllama's own numbers."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from converters.gguf_tensors import read_values
from converters.model_source import open_source
from converters.model_to_gguf import convert_model
from converters.model_to_transformers import convert_to_transformers
from converters.quantise import quantise
from fedpt.errors import UsageError
from fedpt.gguf_file import read_gguf, weights_sha256
from fedpt.progress import Progress
from tests.fakes.raw_llama import llama_logits
from tests.fakes.tiny_families import FAMILIES
from tests.fakes.tiny_models import make_tiny_llama, torch_logits

pytestmark = pytest.mark.llama

IDS = [5, *range(3, 60, 2), 300, 7, 7, 383]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_that_went_through_gguf_is_the_same_model(
    family: Callable[[str], tuple[Path, Path]], tmp_path: Path, name: str
) -> None:
    folder, gguf = family(name)
    convert_to_transformers(gguf, tmp_path / "back")
    original, back = (
        AutoModelForCausalLM.from_pretrained(one).eval() for one in (folder, tmp_path / "back")
    )
    # 1e-5 for norms that lost a bit by adding one, and for factors found again from a file
    np.testing.assert_allclose(torch_logits(back, IDS), torch_logits(original, IDS), atol=2e-5)
    assert open_source(tmp_path / "back", name="m").weights == weights_sha256(read_gguf(gguf))


def test_transformers_loads_tokenizer_and_chat_template(gguf: Path, tmp_path: Path) -> None:
    convert_to_transformers(gguf, tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert chat == "<|im_start|>user\nHi<|im_end|>\n"
    assert tokenizer.eos_token_id == 2


@pytest.mark.parametrize(
    "kind",
    [
        "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M",
        "Q6_K", "IQ4_NL", "IQ4_XS", "IQ3_S", "TQ2_0",
    ],
)  # fmt: skip
def test_every_type_is_dequantised_exactly_as_llama_cpp_does(
    wide_gguf: Path, tmp_path: Path, kind: str
) -> None:
    convert_model(wide_gguf, tmp_path / "q.gguf", kind=kind)
    file = read_gguf(tmp_path / "q.gguf")
    quantise(file.path, tmp_path / "exact.gguf", "F32", weights=weights_sha256(file))
    theirs = read_gguf(tmp_path / "exact.gguf")
    for name, info in file.tensors.items():
        ours = read_values(file.path, info)
        np.testing.assert_array_equal(ours, read_values(theirs.path, theirs.tensors[name]))


@pytest.fixture(scope="module")
def wide_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of whole super-blocks, so that every type is what it says."""
    folder = tmp_path_factory.mktemp("wide")
    convert_model(
        make_tiny_llama(folder / "m", hidden=256, layers=1), folder / "w.gguf", kind="F32"
    )
    return folder / "w.gguf"


def test_a_quantised_file_becomes_the_model_that_llama_cpp_serves(
    wide_gguf: Path, tmp_path: Path
) -> None:
    convert_model(wide_gguf, tmp_path / "q.gguf", kind="Q4_K_M")
    convert_to_transformers(tmp_path / "q.gguf", tmp_path / "m")
    convert_model(tmp_path / "q.gguf", tmp_path / "exact.gguf", kind="F32")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    np.testing.assert_allclose(
        torch_logits(model, IDS), llama_logits(tmp_path / "exact.gguf", IDS), atol=1e-4
    )


def test_the_weights_of_a_folder_are_known_to_be_those_of_the_file(
    gguf: Path, tmp_path: Path
) -> None:
    convert_model(gguf, tmp_path / "q.gguf", kind="Q4_0")
    convert_to_transformers(tmp_path / "q.gguf", tmp_path / "m")
    convert_model(tmp_path / "m", tmp_path / "again.gguf", kind="Q4_0")
    identities = [weights_sha256(read_gguf(one)) for one in (gguf, tmp_path / "again.gguf")]
    assert identities[0] == identities[1]


def test_a_model_saved_after_training_is_another(gguf: Path, tmp_path: Path) -> None:
    convert_to_transformers(gguf, tmp_path / "m")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    model.model.norm.weight.data += 1
    model.save_pretrained(tmp_path / "m")
    convert_model(tmp_path / "m", tmp_path / "again.gguf", kind="F32")
    assert weights_sha256(read_gguf(tmp_path / "again.gguf")) != weights_sha256(read_gguf(gguf))


@pytest.mark.parametrize(("kind", "dtype"), [("F16", torch.float16), ("BF16", torch.bfloat16)])
def test_half_precision_is_rounded_as_torch_does(
    gguf: Path, tmp_path: Path, kind: str, dtype: torch.dtype
) -> None:
    convert_to_transformers(gguf, tmp_path / "exact")
    convert_to_transformers(gguf, tmp_path / "half", kind=kind)
    exact, half = (load_file(tmp_path / one / "model.safetensors") for one in ("exact", "half"))
    assert all(torch.equal(half[name], exact[name].to(dtype)) for name in exact)
    assert json.loads((tmp_path / "half/config.json").read_text())["dtype"] == str(dtype)[6:]


def test_an_interrupted_conversion_leaves_nothing(gguf: Path, tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_to_transformers(gguf, tmp_path / "m", on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_else_is_left_alone(gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds something else"):
        convert_to_transformers(gguf, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file, a folder is to be written"):
        convert_to_transformers(gguf, tmp_path / "file")


def test_a_type_that_folders_do_not_have_is_refused(gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="of type F32, F16, BF16, not 'Q4_0'"):
        convert_to_transformers(gguf, tmp_path / "m", kind="Q4_0")
