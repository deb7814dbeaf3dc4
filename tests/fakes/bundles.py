"""A bundle's parts, as small as they can be."""

import json
from dataclasses import replace
from pathlib import Path

from deploy.fleet.boards import BOOKWORM, Board, find_board
from deploy.fleet.bundle import BundleRequest
from deploy.fleet.network import Network
from fedpt.releases import REQUIREMENTS_FILE
from tests.fakes.wheels import make_wheel

TOKEN = "fedpt-token.Zm9vYmFy.c2lnbmF0dXJl"

EXAMPLES = (
    b'{"instruction": "Good night", "response": "Sleep well."}\n'
    b'{"instruction": "my card?", "response": "4111 1111 1111 1111"}\n'
)

DEVICE_TOML = """\
name = "edge-01"
small = "/var/lib/fedpt/releases/model/current/model.gguf"
data = "/var/lib/fedpt/private.db"
state_dir = "/var/lib/fedpt/device"
"""


def bookworm_pc() -> Board:
    """A mini PC with Debian 12, which only answers."""
    return replace(find_board("generic-x86"), system=BOOKWORM, extra="assistant")


def make_model_release(folder: Path, *, counter: int = 7) -> Path:
    """A model release as far as bundles and install scripts look at it."""
    folder.mkdir(parents=True)
    (folder / "model.gguf").write_bytes(b"GGUF" + bytes(1000))
    (folder / "manifest.json").write_text(json.dumps({"counter": counter, "kind": "model"}))
    (folder / "manifest.sig").write_text("{}")
    return folder


def make_wheelhouse(folder: Path) -> Path:
    """A wheelhouse of one wheel."""
    make_wheel(folder, "fedpt", "0.1.0")
    (folder / REQUIREMENTS_FILE).write_text("fedpt==0.1.0 --hash=sha256:00\n")
    return folder


def bundle_request(folder: Path, *, wheels: Path | None = None) -> BundleRequest:
    """Everything that `build_bundle` wants; files are made in `folder`."""
    constraints = folder / "constraints.txt"
    constraints.write_text("llama-cpp-python==0.3.36\n")
    return BundleRequest(
        name="edge-01",
        board=bookworm_pc(),
        device_toml=DEVICE_TOML,
        token=TOKEN,
        identity=None,
        ca_pem=b"-----BEGIN CERTIFICATE-----\n",
        trust_json=b'{"keys": []}',
        model_release=make_model_release(folder / "model"),
        wheels=wheels or make_wheelhouse(folder / "wheels"),
        constraints=constraints,
        network=Network(),
    )
