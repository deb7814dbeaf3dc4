"""The announced adapter comes chunk by chunk, is converted once, and answers from then on."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_runtime.adapter_desk import AdapterFetch, AdapterSwitch
from edge_runtime.assistant import Assistant
from edge_runtime.settings import AssistantSettings
from fedpt.blobs import CHUNK_BYTES, BlobStore
from fedpt.drivers.llama import LlamaModel
from fedpt.drivers.mqtt import Publication
from fedpt.errors import ArtifactError, BlobError
from fedpt.files import sha256_bytes
from fedpt.ids import DeviceId, FederationId
from fedpt.wire.codec import decode
from fedpt.wire.messages import BlobRef, ChunkRequest
from fedpt.wire.topics import Topics
from tests.fakes.tiny_federation import TinyFederation

TOPICS = Topics(FederationId("home"))


@dataclass
class Link:
    """What is subscribed to and asked for."""

    bytes_received: int = 100
    filters: set[str] = field(default_factory=set)
    asked: list[int] = field(default_factory=list)

    def subscribe(self, topic: str) -> None:
        self.filters.add(topic)

    def unsubscribe(self, topic: str) -> None:
        self.filters.remove(topic)

    def publish(self, publication: Publication) -> None:
        self.asked += decode(publication.payload, ChunkRequest).indices


OLD, NEW = (bytes([value]) * (2 * CHUNK_BYTES + 5) for value in (1, 2))


def blob(content: bytes) -> tuple[BlobRef, list[bytes]]:
    """Its name, and its three chunks."""
    ref = BlobRef(sha256=sha256_bytes(content), size_bytes=len(content), chunk_bytes=CHUNK_BYTES)
    return ref, [content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES)]


@pytest.fixture
def link() -> Link:
    return Link()


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "board")


@pytest.fixture
def fetch(link: Link, store: BlobStore) -> AdapterFetch:
    return AdapterFetch(link, TOPICS, DeviceId("board-1"), store)  # type: ignore[arg-type]


def test_an_adapter_is_fetched_chunk_by_chunk(
    fetch: AdapterFetch, link: Link, store: BlobStore
) -> None:
    ref, chunks = blob(NEW)
    assert not fetch.step(ref, 0.0)
    assert link.asked == [0, 1, 2]
    assert link.filters == {TOPICS.coordinator_chunk(ref.sha256, "+")}
    for index, chunk in enumerate(chunks):
        fetch.keep_chunk(ref.sha256, index, chunk, 1.0)
    link.bytes_received += 10
    assert fetch.step(ref, 1.0)
    assert store.get(ref.sha256) == NEW
    assert link.filters == set()
    assert fetch.bytes_since == 10


def test_a_newer_adapter_takes_the_place_of_one_that_is_on_its_way(
    fetch: AdapterFetch, link: Link
) -> None:
    old, chunks = blob(OLD)
    new, _ = blob(NEW)
    fetch.step(old, 0.0)
    fetch.step(new, 0.0)
    assert link.filters == {TOPICS.coordinator_chunk(new.sha256, "+")}
    fetch.keep_chunk(old.sha256, 0, chunks[0], 1.0)  # a late one
    assert not fetch.step(new, 1.0)


def test_one_that_is_far_too_large_is_not_asked_for(fetch: AdapterFetch, link: Link) -> None:
    with pytest.raises(BlobError):
        fetch.step(BlobRef(sha256="a" * 64, size_bytes=10**12, chunk_bytes=131_072), 0.0)
    assert link.asked == []


@pytest.fixture
def assistant(tiny: TinyFederation) -> Iterator[tuple[LlamaModel, Assistant]]:
    settings = AssistantSettings(context_tokens=64, conversations=1, threads=1)
    with LlamaModel(tiny.small) as model:
        assistant = Assistant(model, settings)
        yield model, assistant
        assistant.close()


@pytest.mark.llama
def test_an_adapter_is_converted_and_those_before_are_forgotten(
    assistant: tuple[LlamaModel, Assistant], tiny: TinyFederation, tmp_path: Path, store: BlobStore
) -> None:
    folder = tmp_path / "adapters"
    folder.mkdir()
    (folder / "old.gguf").write_bytes(b"old")
    ref = store.put(tiny.adapter_blob.read_bytes())
    switch = AdapterSwitch(folder, *assistant)
    assert switch.serve(ref.sha256, store)
    assert assistant[1].adapter == ref.sha256
    assert [one.name for one in folder.iterdir()] == [f"{ref.sha256}.gguf"]


@pytest.mark.llama
def test_a_damaged_adapter_leaves_the_old_one(
    assistant: tuple[LlamaModel, Assistant], tmp_path: Path, store: BlobStore
) -> None:
    ref = store.put(b"no adapter")
    with pytest.raises(ArtifactError):
        AdapterSwitch(tmp_path, *assistant).serve(ref.sha256, store)
    assert assistant[1].adapter == ""


@pytest.mark.llama
def test_a_personal_adapter_answers_until_it_is_dropped_whatever_the_federation_has(
    assistant: tuple[LlamaModel, Assistant], tiny: TinyFederation, tmp_path: Path, store: BlobStore
) -> None:
    ref = store.put(tiny.adapter_blob.read_bytes())
    switch = AdapterSwitch(tmp_path / "adapters", *assistant)
    assert switch.use_personal("ours", tiny.adapter_gguf)
    assert switch.serve(ref.sha256, store)
    assert (assistant[1].adapter, assistant[1].is_personal) == ("ours", True)
    assert switch.use_federation()
    assert (assistant[1].adapter, assistant[1].is_personal) == (ref.sha256, False)


@pytest.mark.llama
def test_before_the_federation_has_an_adapter_none_answers(
    assistant: tuple[LlamaModel, Assistant], tiny: TinyFederation, tmp_path: Path
) -> None:
    switch = AdapterSwitch(tmp_path, *assistant)
    switch.use_personal("ours", tiny.adapter_gguf)
    assert switch.use_federation()
    assert assistant[1].adapter == ""
