"""A wish for a file: granted, or refused before any work."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from converters.cli import app
from converters.importance import importance_of
from converters.quantise_model import Wish, quantise_model
from converters.verify import default_text, verify
from fedpt.errors import DataFileError, ModelFileError, UsageError
from fedpt.gguf_file import GgufFile, read_gguf, weights_sha256
from fedpt.gguf_types import GGML_TYPE_IDS
from fedpt.progress import Progress
from tests.fakes.tiny_models import make_tiny_llama

pytestmark = pytest.mark.llama


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose rows are whole blocks of 256."""
    return make_tiny_llama(tmp_path_factory.mktemp("wide") / "wide", hidden=256)


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    path = tmp_path / "calibration.txt"
    path.write_text(default_text())
    return path


def test_fallbacks_are_told_before_the_work(model_folder: Path, tmp_path: Path) -> None:
    notes: list[str] = []

    def note(text: str) -> None:
        assert not (tmp_path / "q.gguf").exists()
        notes.append(text)

    quantise_model(model_folder, tmp_path / "q.gguf", Wish("Q4_K_M"), on_note=note)
    assert "11 tensors will be Q5_0 instead of Q4_K: rows of 64 values are no whole blocks" in notes


def test_the_command_tells_its_choice_and_what_falls_back(gguf: Path, tmp_path: Path) -> None:
    out = tmp_path / "q.gguf"
    flags = ["--target-size", "150kB", "--tensor", "attn_v=Q5_1"]
    done = CliRunner().invoke(app, ["model", str(gguf), str(out), *flags])
    assert done.exit_code == 0, done.output
    assert " of 0.1 MB" in done.stderr
    assert done.stdout.startswith(f"{out}  0.1 MB  ")
    stored = read_gguf(out).tensors["blk.0.attn_v.weight"].ggml_type
    assert stored == GGML_TYPE_IDS["Q5_1"]


def test_a_transformers_folder_is_not_quantised(gguf: Path, tmp_path: Path) -> None:
    flags = ["--to", "transformers", "--board", "rpi5"]
    done = CliRunner().invoke(app, ["model", str(gguf), str(tmp_path / "f"), *flags])
    assert isinstance(done.exception, UsageError)


def test_whole_blocks_need_no_fallback(wide: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    quantise_model(wide, tmp_path / "q.gguf", Wish("Q4_K_S"), on_note=notes.append)
    assert notes == []


def test_a_folder_keeps_its_identity_in_every_type(model_folder: Path, tmp_path: Path) -> None:
    identities = set()
    for wish in (Wish("F16"), Wish("Q8_0"), Wish("Q4_0"), Wish(board="rpi5")):
        quantise_model(model_folder, tmp_path / "q.gguf", wish)
        identities.add(weights_sha256(read_gguf(tmp_path / "q.gguf")))
    assert len(identities) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "q.gguf"]  # and nothing else is left


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish("Q4_0", target_size="90MB"), "give one of --type, --target-size and --board"),
        (Wish(target_size="90MB", board="rpi5"), "give one of"),
        (Wish("Q9"), "no such type: 'Q9'"),
        (Wish(target_size="many"), "no size: 'many'"),
        (Wish(overrides=("attn_v=Q8_0",)), "F16 stores all matrices alike"),
        (Wish("IQ2_XS"), "IQ2_XS needs an importance matrix .* give calibration text"),
        (Wish("Q2_K_S"), "Q2_K_S needs an importance matrix"),
    ],
)
def test_wishes_that_cannot_be_granted_are_refused(
    wide: Path, tmp_path: Path, wish: Wish, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        quantise_model(wide, tmp_path / "q.gguf", wish)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_is_not_quantised(adapter_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is no model but: adapter"):
        quantise_model(adapter_gguf, tmp_path / "q.gguf", Wish("Q4_0"))


def test_calibrated_types_of_two_bits_can_be_written(
    wide: Path, tmp_path: Path, calibration: Path
) -> None:
    told: list[Progress] = []
    wish = Wish("IQ2_XS", calibration=calibration)
    quantise_model(wide, tmp_path / "q.gguf", wish, on_progress=told.append)
    assert read_gguf(tmp_path / "q.gguf").metadata["quantize.imatrix.entries_count"] == 14
    assert any(one.note == "calibrating" for one in told)


def test_calibration_helps(wide: Path, tmp_path: Path, calibration: Path) -> None:
    quantise_model(wide, tmp_path / "plain.gguf", Wish("Q2_K"))
    quantise_model(wide, tmp_path / "guided.gguf", Wish("Q2_K", calibration=calibration))
    files = [tmp_path / "plain.gguf", tmp_path / "guided.gguf"]
    plain, guided = verify(files, wide, calibration).files
    assert guided.fidelity.mean_kl < plain.fidelity.mean_kl


def test_importance_is_the_mean_square_of_what_a_layer_gets(
    base: GgufFile, calibration: Path
) -> None:
    importance = importance_of(base, calibration)
    matrices = [name for name in base.tensors if name.startswith("blk.") and "norm" not in name]
    assert sorted(importance) == sorted(matrices)
    for name, columns in importance.items():
        assert columns.shape == (base.tensors[name].shape[-1],)
        assert (columns > 0).all()
    # a norm is before these, so that their inputs' squares are about those of its weights: one
    assert importance["blk.0.attn_q.weight"].mean() == pytest.approx(1, rel=0.01)
    assert (importance["blk.0.attn_q.weight"] == importance["blk.0.attn_v.weight"]).all()


@pytest.mark.parametrize(
    ("content", "message"), [("", "holds no text"), ("too short", "calibration needs 64")]
)
def test_text_that_says_nothing_is_refused(
    base: GgufFile, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "text.txt"
    path.write_text(content)
    with pytest.raises(DataFileError, match=message):
        importance_of(base, path)
