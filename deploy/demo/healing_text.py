"""Public text of the demonstration's kind: for deriving a small model that can learn its task.

Commands of homes that are nobody's, as a person would say them to an assistant, and the JSON that
the sentence templates are written in. No command comes with its intent.
"""

from importlib.resources import files
from random import Random

from deploy.demo.smart_home import SYSTEM_PROMPT, make_smart_home_data
from fedpt.chat import render_prompt
from fedpt.gguf_file import GgufFile

_COMMANDS = 360
_SYSTEMS = (SYSTEM_PROMPT, "You control a smart home.", "Answer briefly.", "")
_REPLIES = ("Okay.", "Sure, done.", "Done.", "I cannot do that.", "Which one do you mean?")
_JSON_PIECES = 40
_PIECE = 1200


def healing_text(model: GgufFile) -> list[str]:
    """Passages, in the model's own chat format."""
    rng = Random(0)  # nothing secret
    template = str(model.metadata.get("tokenizer.chat_template", ""))
    commands = make_smart_home_data(public=_COMMANDS).public_prompts
    texts = [
        render_prompt(template, command, system=rng.choice(_SYSTEMS)) + rng.choice(_REPLIES)
        for command in commands
    ]
    data = files("home_assistant_intents") / "data"
    for language in ("en", "es"):
        whole = (data / f"{language}.json").read_text(encoding="utf-8")
        starts = [rng.randrange(len(whole) - _PIECE) for _ in range(_JSON_PIECES // 2)]
        texts += [whole[start : start + _PIECE] for start in starts]
    rng.shuffle(texts)
    return texts
