"""Signed releases for tests: keys, manifests over real files, and a runtime of one tiny wheel."""

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_runtime.updates.installing import Device
from edge_runtime.updates.release_store import ReleaseStore
from fedpt.files import sha256_bytes, sha256_file
from fedpt.releases import (
    KINDS,
    Kind,
    Manifest,
    ReleaseFile,
    SignedManifest,
    Trust,
    TrustedKey,
    sign_manifest,
)
from fedpt.signing import SigningKey

KEY = SigningKey.generate()
OTHER_KEY = SigningKey.generate()
WEIGHTS = "b" * 64
FAR_UNIX_S = 1e11


def trust(*keys: SigningKey, kinds: tuple[Kind, ...] = KINDS) -> Trust:
    """Believes these keys, for these kinds."""
    return Trust([TrustedKey(key.public, list(kinds)) for key in keys or (KEY,)])


def manifest(kind: Kind = "model", counter: int = 1, **changes: Any) -> Manifest:
    """A release of one made-up file, unless told otherwise."""
    usual = {
        "created_unix_s": 0.0,
        "expires_unix_s": FAR_UNIX_S,
        "files": [ReleaseFile(path="file", sha256=sha256_bytes(b"content"), size_bytes=7)],
        "base_weights": WEIGHTS if kind in ("model", "adapter") else "",
    }
    return Manifest(kind=kind, counter=counter, **{**usual, **changes})


def signed(
    kind: Kind = "model", counter: int = 1, *, key: SigningKey = KEY, **changes: Any
) -> SignedManifest:
    """Such a manifest, signed."""
    return sign_manifest(manifest(kind, counter, **changes), key)


def signed_files(
    kind: Kind,
    counter: int,
    files: Mapping[str, Path],
    *,
    key: SigningKey = KEY,
    **changes: Any,
) -> SignedManifest:
    """A release of real files."""
    listed = [
        ReleaseFile(path=name, sha256=sha256_file(path), size_bytes=path.stat().st_size)
        for name, path in files.items()
    ]
    return signed(kind, counter, key=key, files=listed, **changes)


def put_complete(store: ReleaseStore, kind: Kind, counter: int) -> str:
    """A release that lies in the store as a whole, untried."""
    one = signed(kind, counter)
    (store.begin(kind, one) / "file").write_bytes(b"content")
    store.complete(kind, one.id)
    return one.id


def device(folder: Path, **changes: Any) -> Device:
    """A device that trusts KEY; its releases and trust file are in `folder`."""
    trust_file = folder / "trust.json"
    if not trust_file.exists():
        trust_file.parent.mkdir(parents=True, exist_ok=True)
        trust_file.write_bytes(trust().to_json())
    usual = {
        "store": ReleaseStore(folder / "releases"),
        "trust_file": trust_file,
        "runtime": "0.1.0",
        "small": folder / "small.gguf",
        "base_weights": WEIGHTS,
        "reserve_mb": 0,
        "tolerance": 0.25,
    }
    return Device(**{**usual, **changes})


def write_wheelhouse(folder: Path, version: str = "0.2.0", daemon: str = "") -> Path:
    """A wheel that calls itself fedpt, has a command and a daemon, and nothing else."""
    folder.mkdir(parents=True)
    name = f"fedpt-{version}"
    files = {
        "edge_runtime/daemon.py": daemon,
        "fedpt_stub.py": "def main():\n    print('fedpt')\n",
        f"{name}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: fedpt\nVersion: {version}\n",
        f"{name}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}.dist-info/entry_points.txt": "[console_scripts]\nfedpt = fedpt_stub:main\n",
    }
    record = "".join(f"{path},{_digest(text)},{len(text)}\n" for path, text in files.items())
    files[f"{name}.dist-info/RECORD"] = f"{record}{name}.dist-info/RECORD,,\n"
    wheel = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    lock = f"fedpt=={version} --hash=sha256:{sha256_file(wheel)}\n"
    (folder / "requirements.lock").write_text(lock)
    return folder


def _digest(text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    return f"sha256={digest.decode().rstrip('=')}"
