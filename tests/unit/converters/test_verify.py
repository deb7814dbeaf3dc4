"""Files against their source: equal where they must be, worse with fewer bits, refused if other."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from converters import verify_report
from converters.cli import app
from converters.model_to_gguf import convert_model
from converters.verify import Verification, default_text, verify
from fedpt.errors import DataFileError, ModelFileError, VocabularyMismatchError
from fedpt.progress import Progress
from tests.fakes.tiny_families import make_tiny_family
from tests.fakes.tiny_models import make_tiny_llama

pytestmark = pytest.mark.llama


@pytest.fixture(scope="module")
def files(gguf: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The tiny model as F32, Q8_0 and Q4_0."""
    folder = tmp_path_factory.mktemp("types")
    others = []
    for kind in ("Q8_0", "Q4_0"):
        convert_model(model_folder, folder / f"{kind}.gguf", kind=kind)
        others.append(folder / f"{kind}.gguf")
    return [gguf, *others]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(default_text()[:1500])
    return path


@pytest.fixture(scope="module")
def result(files: list[Path], model_folder: Path, text: Path) -> Verification:
    return verify(files, model_folder, text)


def test_a_lossless_file_computes_what_its_source_does(result: Verification) -> None:
    lossless = result.files[0].fidelity
    assert lossless.mean_kl < 1e-9
    assert lossless.top1_agreement == 1
    assert lossless.largest_difference < 1e-4  # float32 on both sides, summed in another order
    assert lossless.perplexity == pytest.approx(result.source_perplexity, rel=1e-5)


def test_fewer_bits_are_further_away(result: Verification) -> None:
    losses = [one.fidelity.mean_kl for one in result.files]
    agreements = [one.fidelity.top1_agreement for one in result.files]
    assert losses == sorted(losses)
    assert agreements == sorted(agreements, reverse=True)
    assert losses[2] > 10 * losses[1] > 0
    assert [one.kind for one in result.files] == ["F32", "Q8_0", "Q4_0"]


def test_a_gguf_file_can_be_the_source(files: list[Path], text: Path, result: Verification) -> None:
    again = verify(files[1:], files[0], text)
    for one, other in zip(again.files, result.files[1:], strict=True):
        assert one.fidelity.mean_kl == pytest.approx(other.fidelity.mean_kl, rel=1e-3)
        assert one.fidelity.top1_agreement == other.fidelity.top1_agreement


def test_every_window_is_reported(files: list[Path], text: Path) -> None:
    told: list[Progress] = []
    verify(files[:1], files[0], text, on_progress=told.append)
    assert [one.done for one in told] == list(range(len(told)))
    assert told[-1].done == told[-1].total > 1


def test_another_vocabulary_is_refused(files: list[Path], text: Path, tmp_path: Path) -> None:
    other = make_tiny_llama(tmp_path / "other", vocabulary=320)
    with pytest.raises(VocabularyMismatchError, match="the vocabularies differ"):
        verify(files[:1], other, text)


def test_a_window_is_not_longer_than_the_model_knows_positions(text: Path, tmp_path: Path) -> None:
    folder = make_tiny_family(tmp_path / "positions", "gpt2")
    convert_model(folder, tmp_path / "m.gguf", kind="F32")
    (only,) = verify([tmp_path / "m.gguf"], folder, text).files
    assert only.fidelity.top1_agreement > 0.99


def test_adapters_are_no_models(adapter_gguf: Path, gguf: Path, text: Path) -> None:
    with pytest.raises(ModelFileError):
        verify([adapter_gguf], gguf, text)


def test_a_folder_without_weights_is_told(
    files: list[Path], model_folder: Path, text: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelFileError, match=r"is no transformers folder: it has no config.json"):
        verify(files[:1], tmp_path, text)
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((model_folder / name).read_bytes())
    with pytest.raises(ModelFileError, match="transformers cannot load"):
        verify(files[:1], tmp_path, text)


def test_a_text_of_one_token_is_refused(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a")
    with pytest.raises(DataFileError, match="which is nothing to compare on"):
        verify(files[:1], files[0], tmp_path / "t.txt")


def test_the_default_text_is_of_many_scripts() -> None:
    text = default_text()
    assert 4000 < len(text.encode()) < 10_000
    assert all(letter in text for letter in "aäżж早の늘صश🌧")


def test_the_table_has_a_line_for_each_file(result: Verification) -> None:
    lines = verify_report.as_table(result).splitlines()
    assert "perplexity" in lines[0]
    assert lines[2].split()[:3] == ["file", "type", "MB"]
    assert [line.split()[1] for line in lines[3:]] == ["F32", "Q8_0", "Q4_0"]


def test_the_command_prints_json_and_draws(files: list[Path], text: Path, tmp_path: Path) -> None:
    picture = tmp_path / "quality.png"
    arguments = ["verify", *files, "--against", files[0], "--text", text, "--json"]
    done = CliRunner().invoke(app, [*map(str, arguments), "--plot", str(picture)])
    content = json.loads(done.stdout)
    assert [one["type"] for one in content["files"]] == ["F32", "Q8_0", "Q4_0"]
    assert content["files"][0]["mean_kl"] < content["files"][2]["mean_kl"]
    assert picture.read_bytes().startswith(b"\x89PNG")
