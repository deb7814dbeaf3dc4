"""Tiny wheels that pip takes for real ones: a name, a version, requirements, an empty module."""

import base64
import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

PURE = "py3-none-any"


def make_wheel(
    folder: Path, name: str, version: str, *, tag: str = PURE, requires: Sequence[str] = ()
) -> Path:
    """Write `<name>-<version>-<tag>.whl`; extras are those that the requirements' markers name."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    extras = {line.split('extra == "')[1].split('"')[0] for line in requires if "extra ==" in line}
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in sorted(extras)]
    lines += [f"Requires-Dist: {line}" for line in requires]
    contents = {
        f"{name.replace('-', '_')}/__init__.py": "",
        f"{stem}.dist-info/METADATA": "\n".join(lines) + "\n",
        f"{stem}.dist-info/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = [f"{path},sha256={_digest(text)},{len(text)}" for path, text in contents.items()]
    contents[f"{stem}.dist-info/RECORD"] = "\n".join([*record, f"{stem}.dist-info/RECORD,,"])
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in contents.items():
            archive.writestr(inner, text)
    return path


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
