"""When two examples are the same one: whatever surrounds the texts and however accents are written.

Pure. The digest names an example in the store; which examples are held out is decided elsewhere, by
their tokens.
"""

import hashlib
import json
import unicodedata

from fedpt.examples import Example


def digest_of(example: Example) -> bytes:
    """32 bytes, the same for the same system, question and answer after stripping and NFC."""
    texts = (example.system, example.prompt, example.answer)
    plain = [unicodedata.normalize("NFC", text).strip() for text in texts]
    return hashlib.sha256(json.dumps(plain).encode()).digest()
