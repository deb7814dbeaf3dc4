"""Topics are built and parsed by one table, and nothing else passes for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpt.errors import MalformedMessageError
from fedpt.ids import NAME_PATTERN, DeviceId, FederationId, is_name, is_sha256
from fedpt.releases import KINDS
from fedpt.wire.topics import (
    Chunk,
    FromCoordinator,
    FromDevice,
    OfRelease,
    Parsed,
    ToDevice,
    Topics,
    parse,
)

names = st.from_regex(NAME_PATTERN, fullmatch=True)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
indices = st.integers(0, 999_999)

HOME = Topics(FederationId("home"))
SHA = "0f" * 32


@given(names, names, names, st.tuples(hashes, indices))
def test_what_is_built_is_parsed(
    federation: str, device: str, worker: str, chunk: tuple[str, int]
) -> None:
    topics, sender = Topics(FederationId(federation)), DeviceId(device)
    sha256, index = chunk
    pairs: list[tuple[str, Parsed]] = [
        (topics.coordinator_status, FromCoordinator("status")),
        (topics.round, FromCoordinator("round")),
        (topics.coordinator_chunk(sha256, index), Chunk(sha256, index, None)),
        (topics.device_chunk(sender, sha256, index), Chunk(sha256, index, sender)),
        (topics.worker_logits(worker, sender), FromDevice(sender, "logits")),
    ]
    for kind in ("status", "offer", "want", "logits"):
        pairs.append((topics.device(sender, kind), FromDevice(sender, kind)))
    for kind in ("want", "receipt", "logits"):
        pairs.append((topics.inbox(sender, kind), ToDevice(sender, kind)))
    for release in KINDS:
        pairs.append((topics.release(release), OfRelease(release)))
    for topic, parsed in pairs:
        assert parse(topic) == parsed


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a topic matches a filter, as the standard says."""
    wanted = topic_filter.removeprefix("$share/logit-workers/").split("/")
    levels = topic.split("/")
    if wanted[-1] == "#":
        return levels[: len(wanted) - 1] == wanted[:-1]
    return len(wanted) == len(levels) and all(
        one in ("+", level) for one, level in zip(wanted, levels, strict=True)
    )


def test_the_filters_match_their_topics_and_no_others() -> None:
    one = DeviceId("one")
    assert matches(HOME.device("+", "offer"), HOME.device(one, "offer"))
    assert not matches(HOME.device("+", "logits"), HOME.inbox(one, "logits"))
    assert matches(HOME.device_chunk("+", "+", "+"), HOME.device_chunk(one, SHA, 5))
    assert matches(HOME.coordinator_chunk(SHA, "+"), HOME.coordinator_chunk(SHA, 5))
    assert matches(HOME.release("+"), HOME.release("model"))
    assert matches(HOME.inbox(one, "#"), HOME.inbox(one, "receipt"))
    assert not matches(HOME.inbox(one, "#"), HOME.inbox(DeviceId("two"), "receipt"))
    assert matches(HOME.shared_logits, HOME.device(one, "logits"))
    assert matches(HOME.worker_logits("w", "+"), HOME.worker_logits("w", one))


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "/",
        "fedpt/v1",
        "fedpt/v1/home",
        "fedpt/v1/home/coordinator",
        "fedpt/v1//coordinator/status",
        "fedpt/v1/ho me/coordinator/status",
        "fedpt/v1/+/coordinator/status",
        "fedpt/v2/home/coordinator/status",
        "other/v1/home/coordinator/status",
        "home/coordinator/status",
        "/coordinator/status",
        "x/fedpt/v1/home/coordinator/status",
        "fedpt/v1/home/coordinator/status/",
        "fedpt/v1/home/coordinator/release/firmware",
        "fedpt/v1/home/coordinator/release/+",
        "fedpt/v1/home/coordinator/release",
        "fedpt/v1/home/coordinator/Status",
        "fedpt/v1/home/device//status",
        "fedpt/v1/home/device/../status",
        "fedpt/v1/home/device/.hidden/status",
        "fedpt/v1/home/device/one\n/status",
        "fedpt/v1/home/device/Küche/status",
        "fedpt/v1/home/device/" + "x" * 64 + "/status",
        "fedpt/v1/home/device/one/shutdown",
        "fedpt/v1/home/device/one/inbox",
        "fedpt/v1/home/device/one/inbox/",
        "fedpt/v1/home/device/one/inbox/#",
        "fedpt/v1/home/device/one/inbox/want/more",
        "fedpt/v1/home/worker//logits/one",
        "fedpt/v1/home/worker/w/logits/+",
        "fedpt/v1/home/worker/w/status/one",
        f"fedpt/v1/home/coordinator/chunk/{SHA}",
        f"fedpt/v1/home/coordinator/chunk/{SHA.upper()}/0",
        f"fedpt/v1/home/coordinator/chunk/{SHA[:-1]}/0",
        f"fedpt/v1/home/coordinator/chunk/{SHA}\n/0",
        *(
            f"fedpt/v1/home/device/one/chunk/{SHA}/{index}"
            for index in ("", "+", "-1", "1.0", "01", "²", "٣", "1_0", " 1", "1\n", "1000000")
        ),
    ],
)
def test_nothing_else_is_a_topic_of_ours(topic: str) -> None:
    with pytest.raises(MalformedMessageError, match="not a topic of ours"):
        parse(topic)


levels = st.sampled_from(
    ["fedpt", "v1", "home", "device", "coordinator", "worker", "chunk", "inbox", "status", SHA, "0"]
)


@given(st.lists(levels | st.text(), max_size=9).map("/".join) | st.text())
def test_whatever_parses_is_safe_to_build_with(topic: str) -> None:
    try:
        parsed = parse(topic)
    except MalformedMessageError:
        return
    device = getattr(parsed, "device", None)
    assert device is None or is_name(device)
    assert not isinstance(parsed, Chunk) or (is_sha256(parsed.sha256) and parsed.index >= 0)
