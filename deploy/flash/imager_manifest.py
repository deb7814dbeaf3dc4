"""The list that Raspberry Pi Imager shows when it is given our image: `*.rpi-imager-manifest`.

Imager checks what it writes against the sha256, and offers no settings of its own
(`init_format`): the image is customised already.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

MANIFEST_SUFFIX: Final = ".rpi-imager-manifest"


def imager_manifest(
    image: Path, *, device: str, size_bytes: int, sha256: str, made_unix_s: float
) -> dict[str, Any]:
    """The manifest for one uncompressed image; any board may be chosen in Imager."""
    entry = {
        "name": f"fedpt: {device}",
        "description": f"For the device {device} only. Write it to one card and start the board.",
        "icon": "",
        "url": image.resolve().as_uri(),
        "extract_size": size_bytes,
        "extract_sha256": sha256,
        "image_download_size": size_bytes,
        "release_date": datetime.fromtimestamp(made_unix_s, UTC).date().isoformat(),
        "init_format": "none",
        "devices": [],
    }
    any_board = {
        "name": "No filtering",
        "tags": [],
        "icon": "",
        "description": "Any board",
        "matching_type": "inclusive",
        "default": True,
    }
    return {"imager": {"devices": [any_board]}, "os_list": [entry]}
