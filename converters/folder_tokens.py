"""The tokens of a transformers folder, by id. Needs no library for tokenizers."""

import json
from pathlib import Path

from fedpt.errors import ModelFileError


def tokens_of_folder(folder: Path) -> tuple[str, ...]:
    """Of a folder with a `tokenizer.json`; ids that nothing is spelled by are padding.

    Raises:
        ModelFileError: There is none, or it cannot be read.
    """
    path = folder / "tokenizer.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = content["model"]["vocab"]
        by_id = (
            {int(number): token for token, number in entries.items()}
            if isinstance(entries, dict)
            else {number: entry[0] for number, entry in enumerate(entries)}  # with their scores
        )
        by_id |= {int(one["id"]): one["content"] for one in content.get("added_tokens", [])}
        return tuple(str(by_id.get(number, f"[PAD{number}]")) for number in range(max(by_id) + 1))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ModelFileError(f"cannot read the vocabulary of {path}: {error}") from error
