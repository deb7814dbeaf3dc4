"""Every message comes back as it went; nothing else that comes is let in, or does harm."""

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpt.errors import MalformedMessageError
from fedpt.wire import messages
from fedpt.wire.codec import (
    MAX_MESSAGE_BYTES,
    decode,
    decode_worker_reply,
    decode_worker_request,
    encode,
)
from fedpt.wire.messages import (
    AnswerReply,
    AnswerRequest,
    BlobRef,
    ChunkRequest,
    DeviceStatus,
    LogitReply,
    LogitRequest,
    Message,
    Opening,
    RoundAnnouncement,
    SteeringCoefficients,
    TrainingPlan,
    UpdateOffer,
)
from tests.golden.wire.make import EXAMPLES, FOLDER

KINDS = [
    kind
    for kind in vars(messages).values()
    if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
]


def values(kind: Any) -> st.SearchStrategy[Any]:  # noqa: C901, PLR0912  # a case a type
    """Whatever fits a message's field, from its type."""
    match msgspec.inspect.type_info(kind) if not isinstance(kind, msgspec.inspect.Type) else kind:
        case msgspec.inspect.IntType(ge=ge, le=le):
            low, high = -(2**63) if ge is None else ge, 2**64 - 1 if le is None else le
            return st.integers(low, high)
        case msgspec.inspect.FloatType(gt=gt, ge=ge, le=le):
            low = 0.0 if gt is not None else ge
            return st.floats(low, le, allow_nan=False, exclude_min=gt is not None)
        case msgspec.inspect.StrType(pattern=str(pattern)):
            return st.from_regex(pattern, fullmatch=True)
        case msgspec.inspect.StrType(min_length=low, max_length=high):
            return st.text(min_size=low or 0, max_size=high)
        case msgspec.inspect.ListType(item_type=item, min_length=low):
            return st.lists(values(item), min_size=low or 0, max_size=5)
        case msgspec.inspect.LiteralType(values=choices):
            return st.sampled_from(choices)
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.BytesType(min_length=low, max_length=high):
            return st.binary(min_size=low or 0, max_size=high)
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.UnionType(types=types):
            return st.one_of(*map(values, types))
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(values(key), values(value), max_size=3)
        case msgspec.inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{field.name: values(field.type) for field in fields})
        case other:
            raise TypeError(f"no strategy for {other}: add one")


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_every_message_comes_back(kind: type[Message], data: st.DataObject) -> None:
    message = data.draw(values(kind))
    assert decode(encode(message), kind) == message


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_ever_sent_still_decodes(kind: type[Message]) -> None:
    (expected,) = (example for example in EXAMPLES if type(example) is kind)
    assert decode((FOLDER / f"{kind.__name__}.msgpack").read_bytes(), kind) == expected


@pytest.mark.parametrize("kind", KINDS)
@given(garbage=st.binary())
def test_garbage_is_malformed(kind: type[Message], garbage: bytes) -> None:
    with suppress(MalformedMessageError):
        assert isinstance(decode(garbage, kind), kind)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: type(one).__name__)
def test_a_truncated_message_is_malformed(example: Message) -> None:
    content = encode(example)
    for length in range(len(content)):
        with pytest.raises(MalformedMessageError):
            decode(content[:length], type(example))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: type(one).__name__)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_changed_byte_raises_nothing_else(example: Message, place: int, value: int) -> None:
    content = bytearray(encode(example))
    content[place % len(content)] = value
    with suppress(MalformedMessageError):
        decode(bytes(content), type(example))


def changed(example: type[Message], **changes: object) -> bytes:
    """A good example with other values in it, as an attacker could send it."""
    (good,) = (one for one in EXAMPLES if type(one) is example)
    return msgspec.msgpack.encode({**msgspec.to_builtins(good, builtin_types=(bytes,)), **changes})


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (BlobRef, {"sha256": "../" * 21 + "x"}),
        (BlobRef, {"sha256": "A" * 64}),
        (BlobRef, {"sha256": "a" * 64 + "\n"}),
        (BlobRef, {"size_bytes": 0}),
        (BlobRef, {"chunk_bytes": 0}),
        (BlobRef, {"size_bytes": 2.5}),
        (ChunkRequest, {"indices": []}),
        (ChunkRequest, {"indices": [0] * 257}),
        (ChunkRequest, {"indices": [-1]}),
        (TrainingPlan, {"learning_rate": float("nan")}),
        (TrainingPlan, {"learning_rate": 0.0}),
        (TrainingPlan, {"epochs": True}),
        (TrainingPlan, {"schedule": "steps"}),
        (TrainingPlan, {"warmup_share": 1.5}),
        (TrainingPlan, {"weight_decay": -0.1}),
        (TrainingPlan, {"proximal": float("inf")}),
        (RoundAnnouncement, {"run": "../../etc"}),
        (RoundAnnouncement, {"run": "01234567\n"}),
        (RoundAnnouncement, {"phase": "destroying"}),
        (RoundAnnouncement, {"adapter": None}),
        (DeviceStatus, {"activity": "off"}),
        (UpdateOffer, {"example_count": 0}),
        (SteeringCoefficients, {"alpha": float("nan")}),
        (SteeringCoefficients, {"beta": -0.5}),
        (SteeringCoefficients, {"gamma": float("inf")}),
        (Opening, {"large": "x" * 201}),
    ],
)
def test_values_out_of_range_are_malformed(kind: type[Message], changes: dict[str, object]) -> None:
    (field,) = changes
    with pytest.raises(MalformedMessageError, match=f"not a {kind.__name__}: .*{field}"):
        decode(changed(kind, **changes), kind)


def changed_array(example: type[Message], place: int, value: object) -> bytes:
    """The same of a message that is an array."""
    (good,) = (one for one in EXAMPLES if type(one) is example)
    fields = msgspec.to_builtins(good, builtin_types=(bytes,))
    return msgspec.msgpack.encode([*fields[:place], value, *fields[place + 1 :]])


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [
        (LogitRequest, 0, 3),  # no such kind
        (LogitRequest, 1, -1),
        (LogitRequest, 2, b""),
        (LogitRequest, 2, bytes(9)),
        (LogitRequest, 2, "12345678"),
        (LogitRequest, 3, -1),
        (LogitRequest, 4, [1, 2]),
        (LogitRequest, 4, bytes(3 * 65_536 + 1)),
        (LogitRequest, 5, 0),
        (LogitRequest, 5, 65),
        (LogitRequest, 7, "f64"),
        (LogitRequest, 8, bytes(262_145)),
        (AnswerRequest, 5, -1),
        (AnswerRequest, 5, 65_537),
        (AnswerRequest, 6, "../" * 21 + "x"),
        (AnswerRequest, 7, {"alpha": float("nan")}),
        (AnswerRequest, 8, {"temperature": -1.0}),
        (AnswerRequest, 8, {"top_p": float("nan")}),
        (AnswerRequest, 8, {"seed": 2**60}),
        (AnswerRequest, 9, "x" * 65_537),
        (LogitReply, 2, bytes(7)),
        (LogitReply, 5, "text"),
        (AnswerReply, 5, bytes(3 * 65_536 + 1)),
        (AnswerReply, 6, 1),
    ],
)
def test_values_out_of_range_in_an_array_are_malformed(
    kind: type[Message], place: int, value: object
) -> None:
    with pytest.raises(MalformedMessageError, match=f"not a {kind.__name__}: "):
        decode(changed_array(kind, place, value), kind)


def test_a_worker_is_asked_and_answers_in_either_of_two_ways() -> None:
    for example in EXAMPLES:
        match example:
            case LogitRequest() | AnswerRequest():
                assert decode_worker_request(encode(example)) == example
            case LogitReply() | AnswerReply():
                assert decode_worker_reply(encode(example)) == example
            case _:
                for read in (decode_worker_request, decode_worker_reply):
                    with pytest.raises(MalformedMessageError, match="not a logit or answer re"):
                        read(encode(example))


def test_a_field_that_a_later_version_adds_to_an_array_is_ignored() -> None:
    (good,) = (one for one in EXAMPLES if type(one) is LogitRequest)
    fields = msgspec.to_builtins(good, builtin_types=(bytes,))
    assert decode_worker_request(msgspec.msgpack.encode([*fields, "since v1.7"])) == good


def test_a_field_of_a_later_version_is_ignored() -> None:
    request = decode(changed(ChunkRequest, since="v1.7"), ChunkRequest)
    assert request == ChunkRequest(sha256="a" * 64, indices=[0, 2])


@pytest.mark.parametrize(
    "payload",
    [
        b"\x81\xa1x" + b"\x91" * 100_000,  # nested beyond all measure, in an unknown field
        b"\x81\xa7indices\xdd\xff\xff\xff\xff",  # a list that claims four billion entries
        b"\x81\xa8selected\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa3row\xc6\xff\xff\xff\xff",
        b"\x81\xa7session\xa2\xff\xff",  # no UTF-8
        b"\xd4\x01\x00",
    ],
)
@pytest.mark.parametrize("kind", [ChunkRequest, RoundAnnouncement, LogitReply])
def test_what_is_made_to_do_harm_is_malformed(kind: type[Message], payload: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        decode(payload, kind)


def test_too_large_a_message_is_not_even_read() -> None:
    with pytest.raises(MalformedMessageError, match=r"a LogitReply of 4194305 bytes; 4194304 is"):
        decode(bytes(MAX_MESSAGE_BYTES + 1), LogitReply)


def test_the_largest_row_passes() -> None:
    reply = LogitReply(request=1, session=bytes(8), rows=bytes(5 + 4 * 260_000))
    assert decode(encode(reply), LogitReply) == reply


@pytest.mark.parametrize(("size", "count"), [(1, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
def test_the_last_chunk_may_be_shorter(size: int, count: int) -> None:
    assert BlobRef(sha256="a" * 64, size_bytes=size, chunk_bytes=3).chunk_count == count
