"""Releases over a real broker: announced, fetched, tried, in use; and adapters only when signed."""

import queue
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.adapter_signing import AdapterSigner
from deploy.fleet.release import make_release, stage
from edge_runtime.updates import boot_guard
from edge_runtime.updates.release_store import ReleaseStore
from fedpt.adapters import adapter_to_bytes, initial_adapter
from fedpt.blobs import BlobStore
from fedpt.drivers.mqtt import MqttLink, Publication, Received
from fedpt.files import sha256_bytes
from fedpt.gguf_file import read_gguf, weights_sha256
from fedpt.ids import FederationId
from fedpt.wire.codec import decode, encode
from fedpt.wire.messages import ChunkRequest, RoundAnnouncement
from fedpt.wire.topics import Topics
from tests.fakes.brokers import running_embedded
from tests.fakes.releases import KEY, OTHER_KEY, signed, trust
from tests.fakes.tiny_federation import TinyFederation
from tests.fakes.wire_messages import PLAN, RUN
from tests.integration.running_federation import RunningFederation

pytestmark = [pytest.mark.broker, pytest.mark.llama, pytest.mark.slow]

RELEASES = 'releases = "offered"\ntrust_file = "trust.json"\n'


def _prepare_device(federation: RunningFederation) -> ReleaseStore:
    """Release 1 of the model is installed and in use."""
    folder = federation.folder
    (folder / "trust.json").write_bytes(trust().to_json())
    first = make_release("model", folder / "small.gguf", KEY, releases=folder / "offered")
    shutil.copytree(first, folder / "installed" / "model" / first.name)
    store = ReleaseStore(folder / "installed")
    store.complete("model", first.name)
    store.switch("model", first.name, starts=3)
    store.mark_good()
    _set_releases(federation.config("kitchen"), "installed/model/current/model.gguf")
    return store


def _set_releases(config: Path, small: str) -> None:
    text = config.read_text().replace('small = "small.gguf"', f'small = "{small}"')
    config.write_text(
        f'{text}\n[releases]\nfolder = "installed"\ntrust_file = "trust.json"\n'
        "start_within_s = 0\nhealthy_after_s = 0.5\nreserve_mb = 1\ncanary_tolerance = 9\n"
    )


def _released(federation: RunningFederation, kind: str) -> str:
    releases = federation.status("kitchen").get("releases", {})
    assert isinstance(releases, dict)
    return releases.get(kind, "")


def test_a_device_installs_a_model_and_then_an_adapter_that_the_coordinator_announces(
    tmp_path: Path,
) -> None:
    lines = f"{RELEASES}[distillation]\nenabled = false\n"
    with RunningFederation(tmp_path, devices=("kitchen",), coordinator_lines=lines) as federation:
        config = federation.config("coordinator")
        config.write_text(config.read_text().replace("min_devices = 1", "min_devices = 2"))
        store = _prepare_device(federation)
        first = store.shelf("model").current
        (tmp_path / "canary.txt").write_text("Turn on the lamp in the kitchen, please.")
        second = make_release("model", tmp_path / "small.gguf", KEY, releases=tmp_path / "offered")
        stage(second, 1.0)
        federation.start_all()
        assert federation.processes.pop("kitchen").wait(60) == 75, federation.log("kitchen")

        federation.start("kitchen")
        federation.wait_until(lambda: _released(federation, "model") == second.name, "in use")
        federation.wait_until(lambda: not store.shelf("model").candidate, "it has proved itself")
        shelf = store.shelf("model")
        assert (shelf.current, shelf.previous) == (second.name, first)
        assert (tmp_path / "installed/model/current/canary.txt").is_file()

        blob = tmp_path / "adapter.blob"
        blob.write_bytes(_adapter_blob(tmp_path / "small.gguf"))
        stage(make_release("adapter", blob, KEY, releases=tmp_path / "offered"), 1.0)
        wanted = sha256_bytes(blob.read_bytes())
        federation.wait_until(
            lambda: federation.status("kitchen").get("adapter") == wanted,
            "the assistant answers with the released adapter, without a restart",
        )
        assert federation.status("kitchen")["release_fault"] == ""


def test_a_model_with_which_the_device_does_not_start_is_taken_back_by_the_guard(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    """What the service manager does: the guard, then the device, again and again."""
    store = ReleaseStore(tmp_path / "installed")
    config = tmp_path / "kitchen.toml"
    config.write_text(
        'name = "kitchen"\nsmall = "small.gguf"\nstate_dir = "state"\nconnect_timeout_s = 0.5\n'
        "[broker]\nport = 1\n[assistant]\nthreads = 1\n"
    )
    _set_releases(config, "installed/model/current/model.gguf")
    (tmp_path / "trust.json").write_bytes(trust().to_json())
    releases = []
    for content in (tiny.small.read_bytes(), b"passed its trial, and was damaged since"):
        one = signed("model", len(releases) + 1)
        (store.begin("model", one) / "model.gguf").write_bytes(content)
        store.complete("model", one.id)
        store.switch("model", one.id, starts=2)
        if not releases:
            store.mark_good()
        releases.append(one.id)
    lines = [_start(config, tmp_path / "installed") for _ in range(3)]
    assert ["is not a usable GGUF file" in line for line in lines] == [True, True, False]
    assert "cannot reach the MQTT broker" in lines[2]
    shelf = store.shelf("model")
    assert (shelf.current, list(shelf.refused)) == (releases[0], [releases[1]])


def _start(config: Path, installed: Path) -> str:
    """One start under the guard; the device's last words."""
    subprocess.run([sys.executable, "-I", "-S", boot_guard.__file__, installed], check=True)
    ended = subprocess.run(
        [sys.executable, "-m", "fedpt.cli", "device", "run", "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.stderr


def _adapter_blob(small: Path) -> bytes:
    import numpy as np

    from converters.tensor_names import linear_shapes
    from fedpt.adapters import AdapterManifest, module_kinds

    file = read_gguf(small)
    shapes = linear_shapes(file)
    manifest = AdapterManifest(
        base_weights=weights_sha256(file), rank=2, alpha=4.0, target_modules=module_kinds(shapes)
    )
    adapter = initial_adapter(shapes, manifest, np.random.default_rng(0))
    return adapter_to_bytes(adapter)


def test_a_rounds_adapter_is_not_even_fetched_without_a_good_signature(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    (tmp_path / "trust.json").write_bytes(trust().to_json())
    ref = BlobStore(tmp_path / "blobs").put(tiny.adapter_blob.read_bytes())
    weights = weights_sha256(read_gguf(tiny.small))
    plain = RoundAnnouncement(
        run=RUN, round=1, phase="steering", selected=[], adapter=ref, training=PLAN,
        deadline_unix_s=0.0,
    )  # fmt: skip

    def signed_by(name: str, key: object, now: float) -> RoundAnnouncement:
        path = tmp_path / f"{name}.key"
        path.write_bytes(key.to_pem())
        signer = AdapterSigner(path, tmp_path / f"{name}.json", valid_days=30_000)
        values = {field: getattr(plain, field) for field in plain.__struct_fields__}
        return RoundAnnouncement(**{**values, "release": signer.sign(ref, weights, now)})

    topics = Topics(FederationId("home"))
    heard: queue.SimpleQueue[Received] = queue.SimpleQueue()
    with running_embedded() as broker:
        config = tmp_path / "kitchen.toml"
        config.write_text(
            f'name = "kitchen"\nsmall = "{tiny.small}"\nstate_dir = "state"\n'
            f"[broker]\nport = {broker.port}\n[assistant]\nthreads = 1\n"
        )
        _set_releases(config, str(tiny.small))
        link = MqttLink(broker, "coordinator", on_message=heard.put)
        link.subscribe(topics.device("kitchen", "want"), topics.device("kitchen", "status"))
        link.start(timeout_s=20)
        device = subprocess.Popen(
            [sys.executable, "-m", "fedpt.cli", "device", "run", "--config", str(config)],
            stderr=subprocess.DEVNULL,
        )
        try:
            for announcement, expected in (
                (plain, b"is not signed"),
                (signed_by("stranger", OTHER_KEY, 2000.0), b"unknown key"),
            ):
                link.publish(Publication(topics.round, encode(announcement), retain=True))
                _wait_for(heard, topics, expected)
            link.publish(Publication(topics.round, encode(signed_by("own", KEY, 2000.0))))
            want = _wait_for(heard, topics, b"")
            assert decode(want, ChunkRequest).sha256 == ref.sha256
            link.publish(Publication(topics.round, encode(signed_by("older", KEY, 1000.0))))
            _wait_for(heard, topics, b"already seen 2000000", may_want=True)
        finally:
            device.terminate()
            device.wait(20)
            link.stop()


def _wait_for(
    heard: "queue.SimpleQueue[Received]", topics: Topics, fault: bytes, *, may_want: bool = False
) -> bytes:
    """A status with this fault, or, if that is empty, a request for chunks."""
    while True:
        message = heard.get(timeout=60)
        is_want = message.topic == topics.device("kitchen", "want")
        assert may_want or not (is_want and fault), "it asks for what nobody vouches for"
        if (is_want and not fault) or (fault and fault in message.payload):
            return message.payload
