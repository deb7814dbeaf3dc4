from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.flash.checksums import (
    Checksum,
    expected_sha256,
    file_sha256,
    parse_checksums,
    require_checksum,
)
from fedpt.errors import ImageError, UsageError
from fedpt.files import sha256_bytes
from fedpt.progress import ignore_progress

A, B = "a" * 64, "B" * 64


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (f"{A}  disk.img", [Checksum(A, "disk.img")]),
        (f"{B} *disk.img", [Checksum(B.lower(), "disk.img")]),
        (f"{A}  images/disk one.img", [Checksum(A, "disk one.img")]),
        (f"SHA256 (disk.img) = {A}", [Checksum(A, "disk.img")]),
        (A, [Checksum(A, None)]),
        (f"{A[1:]}  disk.img", []),
        ("-----BEGIN PGP SIGNED MESSAGE-----", []),
    ],
)
def test_the_usual_ways_to_write_a_checksum_are_read(line: str, found: list[Checksum]) -> None:
    assert parse_checksums(f"{line}\n") == found


@given(st.text())
def test_any_text_is_read_without_a_crash(text: str) -> None:
    assert all(len(entry.sha256) == 64 for entry in parse_checksums(text))


def _expected(image: Path, **options: object) -> str | None:
    defaults: dict[str, object] = {"sha256": None, "checksum_file": None}
    return expected_sha256(image, **(defaults | options))  # type: ignore[arg-type]


def test_nobody_says_a_checksum(tmp_path: Path) -> None:
    assert _expected(tmp_path / "disk.img") is None


def test_an_option_comes_before_a_file_before_a_list(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    (tmp_path / "SHA256SUMS").write_text(f"{'1' * 64}  other.img\n{'2' * 64}  disk.img\n")
    assert _expected(image) == "2" * 64
    (tmp_path / "disk.img.sha256").write_text(f"{'3' * 64}  name-before-renaming.img\n")
    assert _expected(image) == "3" * 64
    given_file = tmp_path / "sums"
    given_file.write_text("4" * 64)
    assert _expected(image, checksum_file=given_file) == "4" * 64
    assert _expected(image, checksum_file=given_file, sha256=B) == B.lower()


def test_a_list_that_names_only_longer_names_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").write_text(f"{A}  disk.img.xz\n")
    assert _expected(tmp_path / "disk.img") is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"{A}  x.img\n{B}  y.img\n", "has no sha256 of disk.img"),
        ("", "has no sha256 of disk.img"),
        (f"{A}  disk.img\n{B}  disk.img\n", "contradicts itself"),
    ],
)
def test_a_checksum_file_of_no_use_is_told(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "sums"
    path.write_text(text)
    with pytest.raises(ImageError, match=complaint):
        _expected(tmp_path / "disk.img", checksum_file=path)


def test_what_is_no_checksum_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        _expected(tmp_path / "disk.img", sha256="123")
    with pytest.raises(ImageError, match="cannot read"):
        _expected(tmp_path / "disk.img", checksum_file=tmp_path / "none")


def test_an_image_is_compared_with_what_was_published(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(b"content")
    assert file_sha256(image, on_progress=ignore_progress) == sha256_bytes(b"content")
    require_checksum(image, sha256_bytes(b"content"), on_progress=ignore_progress)
    with pytest.raises(ImageError, match=f"not {A}: it is damaged"):
        require_checksum(image, A, on_progress=ignore_progress)
