"""Models small enough to make in a test, and real in every part: tokenizer, weights, adapter."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as FastTokenizer

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LINEAR_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n'"
    " + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_SUBJECTS = ("The lamp", "A window", "My radio", "Our heating", "The alarm", "Die Küche", "El niño")
_VERBS = ("turns on", "is closed", "can't play", "warms", "rings at 7:30 in", "öffnet", "abre")
_PLACES = ("the kitchen", "room 12", "the hall, isn't it", "Straße 5", "la casa", "the garden")
_REQUESTS = (
    "Dim the bedroom lights to thirty percent before midnight, please!",
    "What temperature should the thermostat keep while everybody sleeps?",
    "Remind me tomorrow morning about watering flowers and feeding Whiskers.",
    "Play something quiet by Schubert; lower the volume after dinner.",
    "Lock every door, switch off all sockets, then tell grandmother good night.",
)
_CORPUS = [f"{a} {b} {c}." for a in _SUBJECTS for b in _VERBS for c in _PLACES][::3]


# the knobs are those that the tests turn
def make_tiny_llama(  # noqa: PLR0913
    folder: Path,
    *,
    seed: int = 0,
    layers: int = 2,
    tied: bool = True,
    hidden: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    vocabulary: int = 384,
) -> Path:
    """Write a transformers folder with a random Llama and a byte-level BPE tokenizer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        initializer_range=0.15,  # logits then spread by about one, so that differences show
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    save_tokenizer(train_tokenizer(vocabulary), folder)
    return folder


def make_tiny_adapter(
    folder: Path,
    model_folder: Path,
    *,
    rank: int = 4,
    seed: int = 1,
    targets: str | Sequence[str] = LINEAR_MODULES,
    rslora: bool = False,
) -> Path:
    """Write a random PEFT adapter over all linear layers; B is not zero, so it changes answers."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    # PEFT wants to know which of the two kinds of layers there is, and warns where there are both
    transposed = model.config.model_type == "gpt2" and "lm_head" not in targets
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
        use_rslora=rslora,
        fan_in_fan_out=transposed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft's own, of transformers 6
        warnings.simplefilter("ignore", UserWarning)  # that it has found out itself
        tuned = get_peft_model(model, config)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name or "lora_embedding_" in name:
            torch.nn.init.normal_(weight, std=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it saves the embedding it adapts
        tuned.save_pretrained(folder)
    return folder


def load_tuned(model_folder: Path, adapter_folder: Path) -> PeftModel:
    """The model with the adapter on it, as PEFT loads it."""
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # as above
        warnings.simplefilter("ignore", UserWarning)
        return PeftModel.from_pretrained(model, adapter_folder).eval()


def train_tokenizer(
    vocabulary: int, pre_tokenizer: pre_tokenizers.PreTokenizer | None = None
) -> Tokenizer:
    """Train a byte-level BPE tokenizer of SmolLM2's kind, or with another pre-tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*_CORPUS, *_REQUESTS], trainer)
    return tokenizer


def training_texts() -> list[str]:
    """What tokenizers are trained on."""
    return [*_CORPUS, *_REQUESTS]


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and the chat template."""
    FastTokenizer(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)


def torch_logits(model: torch.nn.Module, ids: list[int]) -> np.ndarray:
    """Logits of every position, `(T, V)`."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy()


def write_examples(folder: Path, name: str, count: int) -> Path:
    """`<name>.jsonl` in `folder`: examples that differ by their name and number."""
    lines = [
        json.dumps({"instruction": f"turn on {name} {n}", "response": f"on {n}"})
        for n in range(count)
    ]
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(lines))
    return path
