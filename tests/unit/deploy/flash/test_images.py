import gzip
import lzma
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.flash.images import image_kind, open_image
from fedpt.errors import ImageError
from tests.fakes.disk_images import random_bytes

IMAGE = bytes(510) + b"\x55\xaa" + bytes(2_000_000) + random_bytes(300_000) + bytes(777)


def _pack(path: Path, kind: str) -> Path:
    match kind:
        case "xz":
            path.write_bytes(lzma.compress(IMAGE, preset=0))
        case "gz":
            path.write_bytes(gzip.compress(IMAGE))
        case "zst":
            path.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(IMAGE))
        case "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("readme.txt", "hello")
                archive.writestr("a/disk.img", IMAGE)
        case _:
            path.write_bytes(IMAGE)
    return path


def _read_all(path: Path, step: int = 100_003) -> bytes:
    with open_image(path) as stream:
        pieces = []
        while piece := stream.read(step):
            pieces.append(piece)
        assert stream.consumed_bytes <= stream.file_bytes == path.stat().st_size
        assert all(len(piece) == step for piece in pieces[:-1])
        return b"".join(pieces)


@pytest.mark.parametrize("kind", ["img", "xz", "gz", "zst", "zip"])
def test_every_compression_gives_the_same_image_whatever_the_name(
    tmp_path: Path, kind: str
) -> None:
    assert _read_all(_pack(tmp_path / "no-suffix", kind)) == IMAGE


@pytest.mark.parametrize(("kind", "size"), [("img", len(IMAGE)), ("zip", len(IMAGE)), ("xz", None)])
def test_the_size_is_known_before_reading_if_the_container_says_it(
    tmp_path: Path, kind: str, size: int | None
) -> None:
    with open_image(_pack(tmp_path / "image", kind)) as stream:
        assert stream.size_bytes == size


def test_several_frames_of_zstandard_are_one_image(tmp_path: Path) -> None:
    path = tmp_path / "image.zst"
    half = len(IMAGE) // 2
    path.write_bytes(zstandard.compress(IMAGE[:half]) + zstandard.compress(IMAGE[half:]))
    assert _read_all(path) == IMAGE


@pytest.mark.parametrize("kind", ["xz", "gz", "zst", "zip"])
@pytest.mark.parametrize("keep", [0.3, 0.999])
def test_a_cut_off_file_is_never_taken_for_a_whole_one(
    tmp_path: Path, kind: str, keep: float
) -> None:
    path = _pack(tmp_path / "image", kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(ImageError, match=r"cut off or damaged.*download it again"):
        _read_all(path)


@pytest.mark.parametrize("kind", ["xz", "gz", "zst", "zip"])
def test_damage_in_the_middle_is_told(tmp_path: Path, kind: str) -> None:
    path = _pack(tmp_path / "image", kind)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(ImageError, match="download it again"):
        _read_all(path)


@pytest.mark.parametrize("kind", ["xz", "gz", "zst", "zip"])
@settings(max_examples=20)
@given(at=st.integers(0, 300), noise=st.binary(min_size=1, max_size=40))
def test_any_damage_near_the_start_is_told_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, *, kind: str, at: int, noise: bytes
) -> None:
    path = _pack(tmp_path_factory.mktemp("damage") / "image", kind)
    content = path.read_bytes()
    path.write_bytes(content[: at + 8] + noise + content[at + 8 + len(noise) :])
    with suppress(ImageError):  # anything else that is raised is a defect
        assert _read_all(path) == IMAGE
    path.unlink()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"hello", "is no disk image; expected"),
        (b"", "is no disk image"),
        (b"QFI\xfb" + bytes(600), "qcow2.*qemu-img convert"),
        (b"BZh9" + bytes(600), "bunzip2"),
    ],
)
def test_a_wrong_kind_of_file_is_named(content: bytes, complaint: str) -> None:
    with pytest.raises(ImageError, match=complaint):
        image_kind(Path("x"), content)


@pytest.mark.parametrize("names", [["a.txt"], ["a.img", "b.img"]])
def test_a_zip_must_hold_exactly_one_image(tmp_path: Path, names: list[str]) -> None:
    path = tmp_path / "image.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    with pytest.raises(ImageError, match="must be exactly one"), open_image(path):
        pass


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot read .*No such file"), open_image(tmp_path / "x"):
        pass


def test_packed_zeros_are_unpacked_in_pieces(tmp_path: Path) -> None:
    """A file of a few kilobytes must not claim gigabytes of memory at once."""
    from deploy.flash.images import _ZstdReader

    path = tmp_path / "zeros.zst"
    path.write_bytes(zstandard.compress(bytes(512 * 1024 * 1024)))
    with path.open("rb") as file:
        reader = _ZstdReader(file)
        reader.read(1)
        assert len(reader._ready) <= 64 * 1024 * 1024
