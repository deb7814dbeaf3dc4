"""What a manifest may say, who may sign it, and what is news."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpt.errors import ReleaseError
from fedpt.files import sha256_bytes
from fedpt.releases import (
    KINDS,
    ReleaseFile,
    SignedManifest,
    Trust,
    next_counter,
    read_manifest,
    require_news,
    require_usable,
    require_vouched_adapter,
    sign_manifest,
    verify_manifest,
)
from tests.fakes.releases import KEY, OTHER_KEY, WEIGHTS, manifest, signed, trust
from tests.fakes.wire_messages import ref


def test_a_manifest_comes_back_from_its_signed_bytes() -> None:
    one = manifest(note="näht")
    assert verify_manifest(sign_manifest(one, KEY), trust()) == one


def test_a_releases_name_is_its_counter_and_its_bytes() -> None:
    one = signed(counter=12)
    assert one.id == f"12-{sha256_bytes(one.content)[:12]}"
    assert one.id != signed(counter=12, note="other").id


def test_a_signed_manifest_survives_the_wire() -> None:
    one = signed()
    assert SignedManifest.from_wire(one.to_wire()) == one


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ReleaseError, match=f"by an unknown key, {OTHER_KEY.public.id}"):
        verify_manifest(signed(key=OTHER_KEY), trust())


def test_a_key_for_adapters_cannot_sign_a_model() -> None:
    known = trust(kinds=("adapter",))
    verify_manifest(signed("adapter"), known)
    with pytest.raises(ReleaseError, match="signed a model release; it may sign only adapter"):
        verify_manifest(signed("model"), known)


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_is_noticed(place: int, change: int) -> None:
    one = signed()
    content = bytearray(one.content)
    content[place % len(content)] ^= change
    with pytest.raises(ReleaseError, match="wrong signature"):
        verify_manifest(SignedManifest(bytes(content), one.signature), trust())


def test_a_signature_for_another_purpose_is_no_release() -> None:
    content = signed().content
    other = SignedManifest(content, KEY.sign(content, purpose="token"))
    with pytest.raises(ReleaseError, match="wrong signature"):
        verify_manifest(other, trust())


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../up", "a/../../up", "a/./b", "a//b", "", ".", "~root", ".complete", "a/.b",
     "-rf", "a b", "a\nb", "a\\b", "C:x", "a/", "x" * 201, "manifest.json", "Manifest.SIG"],
)  # fmt: skip
def test_a_path_out_of_the_folder_is_refused(path: str) -> None:
    file = ReleaseFile(path=path, sha256="a" * 64, size_bytes=1)
    with pytest.raises(ReleaseError, match="a file that may not be"):
        signed(files=[file])
    content = msgspec.json.encode(manifest(files=[file]))
    with pytest.raises(ReleaseError, match="a file that may not be"):
        verify_manifest(SignedManifest(content, KEY.sign(content, purpose="release")), trust())


def test_a_path_twice_is_refused_in_any_case() -> None:
    files = [ReleaseFile(path=path, sha256="a" * 64, size_bytes=1) for path in ("File", "file")]
    with pytest.raises(ReleaseError, match="twice"):
        signed(files=files)


@given(st.binary(max_size=200))
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(ReleaseError, match="not a release's manifest"):
        read_manifest(content)


@pytest.mark.parametrize(
    "changes", [{"kind": "firmware"}, {"format": 2}, {"counter": 0}, {"files": []}]
)
def test_a_manifest_of_another_form_is_refused(changes: dict[str, Any]) -> None:
    content = {**msgspec.to_builtins(manifest()), **changes}
    with pytest.raises(ReleaseError, match="not a release's manifest"):
        read_manifest(msgspec.json.encode(content))


def test_a_huge_manifest_is_refused_unread() -> None:
    with pytest.raises(ReleaseError, match="is the most"):
        read_manifest(b" " * (512 * 1024 + 1))


def test_only_a_higher_counter_before_the_expiry_is_news() -> None:
    one = manifest(counter=5, expires_unix_s=100.0)
    require_news(one, highest_counter=4, now_unix_s=99.0)
    for highest, now, why in ((5, 99.0, "already seen 5"), (4, 100.0, "expired 0.0 hours ago")):
        with pytest.raises(ReleaseError, match=why):
            require_news(one, highest_counter=highest, now_unix_s=now)


@pytest.mark.parametrize(("runtime", "is_enough"), [("0.9", False), ("0.10", True), ("1", True)])
def test_versions_are_compared_as_versions(runtime: str, is_enough: bool) -> None:
    one = manifest(minimum_runtime="0.10.0")
    if is_enough:
        require_usable(one, runtime=runtime, base_weights=None)
    else:
        with pytest.raises(ReleaseError, match=r"for fedpt 0\.10\.0 or newer"):
            require_usable(one, runtime=runtime, base_weights=None)


def test_an_adapter_needs_its_base() -> None:
    require_usable(manifest("adapter"), runtime="0.1", base_weights=WEIGHTS)
    for base in ("c" * 64, None):
        with pytest.raises(ReleaseError, match="an adapter release for base bbbb"):
            require_usable(manifest("adapter"), runtime="0.1", base_weights=base)


def test_a_manifest_vouches_for_its_own_adapter_only() -> None:
    blob = ref("an adapter")
    files = [ReleaseFile(path="a", sha256=blob.sha256, size_bytes=blob.size_bytes)]
    require_vouched_adapter(manifest("adapter", files=files), blob)
    for kind, other in (("adapter", ref("other")), ("model", blob)):
        with pytest.raises(ReleaseError, match="not about its adapter"):
            require_vouched_adapter(manifest(kind, files=files), other)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"keys": []}', b'{"keys": [{"key": 1}]}'])
def test_a_damaged_file_of_keys_is_refused(content: bytes) -> None:
    with pytest.raises(ReleaseError, match="not a file of trusted keys"):
        Trust.from_json(content)


def test_a_file_of_keys_comes_back() -> None:
    both = trust(KEY, OTHER_KEY, kinds=KINDS[:2])
    assert Trust.from_json(both.to_json()) == both


def test_counters_grow_with_the_time_and_also_without() -> None:
    assert next_counter(0, 1.5) == 1500
    assert next_counter(9000, 1.5) == 9001
