"""`fedpt device install` and `fedpt device releases`, as a person at the board types them."""

import json
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.fleet.release import make_release
from edge_runtime.updates.release_store import ReleaseStore
from fedpt.release_folder import write_signed
from fedpt.releases import ReleaseFile, SignedManifest
from tests.fakes.releases import KEY, OTHER_KEY, put_complete, signed, trust
from tests.fakes.tiny_federation import TinyFederation

pytestmark = [pytest.mark.llama, pytest.mark.slow]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def _fedpt(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fedpt.cli", "device", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def config(tiny: TinyFederation, tmp_path: Path) -> Path:
    (tmp_path / "trust.json").write_bytes(trust().to_json())
    shutil.copyfile(tiny.small, tmp_path / "small.gguf")
    path = tmp_path / "device.toml"
    path.write_text(
        'name = "board"\nsmall = "small.gguf"\nstate_dir = "state"\n'
        '[releases]\nfolder = "installed"\ntrust_file = "trust.json"\nreserve_mb = 1\n'
    )
    return path


def test_a_model_from_a_stick_is_installed_and_listed(config: Path, tmp_path: Path) -> None:
    release = make_release("model", tmp_path / "small.gguf", KEY, releases=tmp_path / "stick")
    result = _fedpt("install", release, "--config", config)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"model release {release.name} is in use, on trial; restart" in result.stdout
    listed = json.loads(_fedpt("releases", "--json", "--config", config).stdout)
    assert listed["model"]["current"] == listed["model"]["candidate"] == release.name
    again = _fedpt("install", release, "--config", config)
    assert again.returncode == 1
    assert "is installed already" in again.stderr
    store = ReleaseStore(tmp_path / "installed")
    store.refuse("model", "9-abc", "it hangs")
    text = _fedpt("releases", "--config", config).stdout
    assert f"model    {release.name}, on trial, 3 starts left; before: none" in text
    assert "refused 9-abc: it hangs" in text


def test_a_release_comes_over_http_too(config: Path, tmp_path: Path) -> None:
    (tmp_path / "new.json").write_bytes(trust(KEY, OTHER_KEY).to_json())
    release = make_release("keys", tmp_path / "new.json", KEY, releases=tmp_path / "web")
    handler = partial(_Quiet, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/keys"
        result = _fedpt("install", f"{base}/{release.name}", "--config", config)
        missing = _fedpt("install", f"{base}/7-abc", "--config", config)
        server.shutdown()
    assert (result.returncode, result.stderr) == (0, "")
    shelf = ReleaseStore(tmp_path / "installed").shelf("keys")
    assert (shelf.current, shelf.candidate) == (release.name, "")
    assert missing.returncode == 1
    assert "cannot fetch the release's manifest" in missing.stderr


def _climbing() -> SignedManifest:
    """What no honest tool signs: a file outside of the release's folder."""
    content = signed("model", 9).content.replace(b'"file"', b'"../small.gguf"')
    return SignedManifest(content, KEY.sign(content, purpose="release"))


def _forged() -> SignedManifest:
    honest = signed("model", 9)
    return SignedManifest(
        honest.content.replace(b'"counter": 9', b'"counter": 10'), honest.signature
    )


HUGE = [ReleaseFile(path="model.gguf", sha256="0" * 64, size_bytes=2**50)]


@pytest.mark.parametrize(
    ("release", "why"),
    [
        (_forged(), "a release with a wrong signature"),
        (signed("model", 4), "with counter 4; this device has already seen 5"),
        (signed("model", 9, expires_unix_s=1.0), "that expired"),
        (_climbing(), "a file that may not be: '../small.gguf'"),
        (signed("model", 9, files=HUGE), "free some space"),
    ],
    ids=["signature", "counter", "expiry", "path", "space"],
)
def test_a_bad_release_is_one_line_and_changes_nothing(
    config: Path, tmp_path: Path, release: SignedManifest, why: str
) -> None:
    store = ReleaseStore(tmp_path / "installed")
    store.switch("model", put_complete(store, "model", 5), starts=3)
    write_signed(tmp_path / "stick", release)
    before = _content_of(tmp_path / "installed")
    result = _fedpt("install", tmp_path / "stick", "--config", config)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("fedpt: ")
    assert result.stderr.count("\n") == 1
    assert why in result.stderr
    assert _content_of(tmp_path / "installed") == before
    assert (tmp_path / "small.gguf").read_bytes().startswith(b"GGUF")


def _content_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_must_not_be_installed_is_refused_in_one_line(config: Path, tmp_path: Path) -> None:
    release = make_release("model", tmp_path / "small.gguf", OTHER_KEY, releases=tmp_path / "s")
    for source, why in ((release, "unknown key"), (tmp_path, "holds no signed release")):
        result = _fedpt("install", source, "--config", config)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("fedpt: ")
        assert result.stderr.count("\n") == 1
        assert why in result.stderr
    config.write_text(config.read_text().partition("[releases]")[0])
    result = _fedpt("releases", "--config", config)
    assert result.returncode == 2
    assert "this device takes no releases" in result.stderr
