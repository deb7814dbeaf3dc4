from pathlib import Path

from deploy.flash.imager_manifest import imager_manifest

REQUIRED_BY_IMAGER = {
    "name", "description", "icon", "url", "extract_size", "extract_sha256", "image_download_size",
    "release_date",
}  # fmt: skip


def test_imager_is_told_all_it_requires_and_offers_no_settings_of_its_own() -> None:
    manifest = imager_manifest(
        Path("/a b/kitchen.img"), device="kitchen", size_bytes=4096, sha256="ab", made_unix_s=0
    )
    (entry,) = manifest["os_list"]
    assert entry.keys() >= REQUIRED_BY_IMAGER
    assert entry["url"] == "file:///a%20b/kitchen.img"
    assert entry["extract_size"] == entry["image_download_size"] == 4096
    assert entry["extract_sha256"] == "ab"
    assert entry["release_date"] == "1970-01-01"
    assert entry["init_format"] == "none"
