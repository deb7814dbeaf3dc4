"""The format's own rules, each broken in bytes made here."""

import struct
from collections.abc import Mapping, Sequence

import pytest

from fedpt.gguf_header import parse_header

Tensor = tuple[bytes, Sequence[int], int, int]
"""Name, dimensions as GGUF has them (columns first), type, offset."""


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def string(value: bytes) -> bytes:
    return struct.pack("<I", 8) + text(value)


def number(value: int, kind: int = 4) -> bytes:
    return struct.pack("<I", kind) + value.to_bytes(4, "little")


def gguf(
    values: Sequence[tuple[bytes, bytes]] = (),
    tensors: Sequence[Tensor] = (),
    *,
    version: int = 3,
    data: int = 4096,
) -> bytes:
    """A file; `data` zeros follow its header."""
    parts = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(values))]
    parts += [text(key) + value for key, value in values]
    for name, dimensions, kind, offset in tensors:
        shape = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        parts.append(text(name) + shape + struct.pack("<IQ", kind, offset))
    return b"".join(parts) + bytes(data)


GOOD: Sequence[Tensor] = [(b"a", (32, 2), 0, 0), (b"b", (32, 3), 8, 256)]


def test_what_keeps_the_rules_is_read() -> None:
    header = parse_header(gguf([(b"general.type", string(b"model"))], GOOD))
    assert header.metadata == {"general.type": "model"}
    assert [(one.shape, one.size_bytes) for one in header.tensors.values()] == [
        ((2, 32), 256),
        ((3, 32), 102),
    ]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([(b"a", (32, 2), 0, 0), (b"a", (32, 2), 0, 256)], "two tensors have one name"),
        ([(b"a", (32, 2), 0, 32)], "is said to lie at 32 of the data, not at 0"),
        ([(b"a", (33, 2), 0, 0), (b"b", (32,), 0, 264)], "not at 288 where the one before it ends"),
        ([(b"a", (32, 2, 1, 1, 1), 0, 0)], "has 5 dimensions"),
        ([(b"a", (32, 0), 0, 0)], r"has the shape \(0, 32\)"),
        ([(b"a", (1 << 40, 1 << 40), 0, 0)], "has the shape"),
        ([(b"a", (1 << 40, 1 << 20), 0, 0)], "it is truncated"),
        ([(b"a", (31, 2), 8, 0)], "rows of 31 values, no whole blocks of Q8_0"),
        ([(b"a", (), 8, 0)], "rows of 1 values"),
        ([(b"a", (32, 2), 4, 0)], "unknown type 4"),
        ([(b"a", (32, 2), 99, 0)], "unknown type 99"),
        ([(b"", (32, 2), 0, 0)], "a tensor is called ''"),
        ([(b"x" * 64, (32, 2), 0, 0)], "which llama.cpp cannot keep"),
        ([(b"x\0y", (32, 2), 0, 0)], "which llama.cpp cannot keep"),
        ([(b"a", (32, 2000), 0, 0)], "it is truncated: tensor 'a'"),
    ],
)
def test_impossible_tensors_are_refused(tensors: Sequence[Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_header(gguf([], tensors))


NESTED = struct.pack("<IIQIQI", 9, 9, 1, 4, 1, 7)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({b"a": number(0, 13)}, "the unknown type 13"),
        ({b"a": NESTED}, "holds arrays"),
        ({b"a": struct.pack("<IIQ", 9, 4, 1 << 60)}, "counts 1152921504606846976 entries"),
        ({b"a": struct.pack("<IIQ", 9, 10, 100)}, "it ends at byte"),
        ({b"a": struct.pack("<IQ", 8, 1 << 63)}, "counts"),
        ({b"": number(1)}, "a metadata key is empty"),
        ({b"general.alignment": number(0)}, "its alignment is 0"),
        ({b"general.alignment": number(48)}, "no power of two"),
        ({b"general.alignment": number(1 << 31)}, "its alignment is 2147483648"),
        ({b"general.alignment": string(b"32")}, "stored as type 8, 4 was expected"),
        ({b"general.type": number(1)}, "stored as type 4, 8 was expected"),
        ({b"adapter.lora.alpha": number(8)}, "stored as type 4, 6 was expected"),
    ],
)
def test_impossible_metadata_is_refused(values: Mapping[bytes, bytes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_header(gguf(list(values.items()), data=64))


def test_a_key_may_not_come_twice() -> None:
    with pytest.raises(ValueError, match="'a' is there twice"):
        parse_header(gguf([(b"a", number(1)), (b"a", number(1))]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gguf(version=1), "version 1 is not supported"),
        (gguf(version=3 << 24), "for big-endian machines"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 62, 0), "counts 4611686018427387904 entries"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 5), "inside its header"),
    ],
)
def test_impossible_beginnings_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_header(content)


def test_another_alignment_is_kept() -> None:
    tensors = [(b"a", (3,), 0, 0), (b"b", (3,), 0, 64)]
    header = parse_header(gguf([(b"general.alignment", number(64))], tensors))
    assert header.tensors["b"].offset == header.tensors["a"].offset + 64
    assert header.tensors["a"].offset % 64 == 0
