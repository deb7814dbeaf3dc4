"""Writes one example of every message of protocol v1 as `v1/<Message>.msgpack`.

`python -m tests.golden.wire.make` writes those that are missing. A file that is there is never
written again: it stands for what other versions have sent, and must decode for ever.
"""

from pathlib import Path

from fedpt.decoding.sampling import Sampling
from fedpt.wire.codec import encode
from fedpt.wire.messages import (
    AnswerReply,
    AnswerRequest,
    BlobRef,
    CalibrationStatus,
    ChunkRequest,
    CoordinatorStatus,
    DeviceStatus,
    LogitReply,
    LogitRequest,
    Message,
    Opening,
    PersonalStatus,
    ReleaseAnnouncement,
    RoundAnnouncement,
    SignedRelease,
    SteeringCoefficients,
    TrainingPlan,
    TrainingProgress,
    UpdateOffer,
    UpdateReceipt,
)

FOLDER = Path(__file__).parent / "v1"

_RUN = "0123456789abcdef0123456789abcdef"
_ADAPTER = BlobRef(sha256="a" * 64, size_bytes=300_000, chunk_bytes=131_072)
_UPDATE = BlobRef(sha256="c" * 64, size_bytes=300_001, chunk_bytes=131_072)
_PLAN = TrainingPlan(epochs=2, learning_rate=0.002, batch_examples=8, context_tokens=256)
_RELEASE = SignedRelease(
    manifest=b'{"format": 1, "kind": "model"}', key="0123456789abcdef", signature=bytes(range(64))
)
_COEFFICIENTS = SteeringCoefficients(alpha=1.0, beta=0.5, gamma=0.25)

_OPENING = Opening(vocabulary="d" * 64, large="SmolLM2 1.7B Instruct")

EXAMPLES: tuple[Message, ...] = (
    _ADAPTER,
    ChunkRequest(sha256="a" * 64, indices=[0, 2]),
    CoordinatorStatus(
        online=True,
        session=1_760_000_000_000_000_000,
        small_weights="b" * 64,
        vocabulary="d" * 64,
        large_name="SmolLM2 1.7B Instruct",
    ),
    _PLAN,
    _RELEASE,
    ReleaseAnnouncement(release=_RELEASE, fraction=0.25, url="https://files.example/model/7-ab"),
    _COEFFICIENTS,
    RoundAnnouncement(
        run=_RUN,
        round=3,
        phase="training",
        selected=["kitchen", "garage"],
        adapter=_ADAPTER,
        training=_PLAN,
        deadline_unix_s=1_760_003_600.5,
        coefficients=_COEFFICIENTS,
    ),
    DeviceStatus(
        session=1_760_000_000_000_000_001,
        activity="training",
        example_count=120,
        small_weights="b" * 64,
        adapter="a" * 64,
        training_done=0.25,
        fault="data.jsonl, line 3: the answer is missing or empty",
    ),
    TrainingProgress(
        steps_done=30,
        steps_total=120,
        tokens_per_s=95.5,
        loss=1.5,
        held_out_nll=1.75,
        seconds_left=540,
        paused_s=12.5,
    ),
    PersonalStatus(
        in_use=True,
        trained_unix_s=1_760_003_000.5,
        example_count=110,
        nll_before=1.25,
        nll_after=0.75,
        training_done=0.5,
        why_not="waits: the assistant answers",
    ),
    CalibrationStatus(
        coefficients=_COEFFICIENTS,
        nll=0.5,
        nll_expert=0.75,
        nll_plain=1.5,
        nll_announced=0.625,
        positions=420,
        made_unix_s=1_760_003_100.5,
    ),
    UpdateOffer(
        run=_RUN,
        round=3,
        base="a" * 64,
        update=_UPDATE,
        example_count=120,
        training_seconds=61.5,
        loss=1.25,
        bytes_down=301_000,
    ),
    UpdateReceipt(
        run=_RUN, round=3, update="c" * 64, accepted=False, code="adapter", reason="not finite"
    ),
    _OPENING,
    LogitRequest(
        request=7,
        session=bytes(range(8)),
        position=0,
        tokens=bytes.fromhex("0000007f0100000001"),
        rows=2,
        largest=2,
        precision="q8",
        candidates=bytes.fromhex("057b8001"),
        opening=_OPENING,
    ),
    LogitReply(
        request=7,
        session=bytes(range(8)),
        worker="worker-0123456789ab",
        busy_us=1500,
        rows=bytes.fromhex("000100000000000040003c05003c"),
        code="",
        reason="",
    ),
    AnswerRequest(
        request=8,
        session=bytes(range(8, 16)),
        position=12,
        tokens=bytes.fromhex("7f0100"),
        most=128,
        adapter="a" * 64,
        coefficients=_COEFFICIENTS,
        sampling=Sampling(temperature=0.5, top_p=0.9, seed=3),
    ),
    AnswerReply(
        request=8,
        session=bytes(range(8, 16)),
        worker="worker-0123456789ab",
        first=1,
        tokens=bytes.fromhex("0200007f0100"),
        is_last=True,
        code="",
        reason="",
    ),
)


def main() -> None:
    """Write what is missing."""
    FOLDER.mkdir(exist_ok=True)
    for example in EXAMPLES:
        path = FOLDER / f"{type(example).__name__}.msgpack"
        if not path.exists():
            path.write_bytes(encode(example))


if __name__ == "__main__":
    main()
