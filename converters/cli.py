"""`fedpt convert`: models and adapters to GGUF.

Each command parses, calls one function and prints one line. What is heavy is imported when called.
"""

from pathlib import Path
from typing import Annotated, Final

import typer

app: Final = typer.Typer(
    no_args_is_help=True, help="Models and adapters to GGUF; small models from large ones."
)


@app.command(
    epilog="Examples:  fedpt convert model ./SmolLM2-135M-Instruct small.gguf --type Q4_0"
    "  ·  fedpt convert model small-f16.gguf small-q8.gguf --type Q8_0"
)
def model(
    source: Annotated[
        Path,
        typer.Argument(help="A transformers folder, a GGUF file, or owner/name on the hub."),
    ],
    out: Annotated[Path, typer.Argument(help="The GGUF file to write.", dir_okay=False)],
    kind: Annotated[
        str,
        typer.Option("--type", help="F32, F16, Q8_0, Q4_0, or any other type of llama.cpp's."),
    ] = "F16",
    pre: Annotated[
        str | None,
        typer.Option(help="llama.cpp's name of the pre-tokenizer, where it is not recognised."),
    ] = None,
) -> None:
    """Convert a model to GGUF, or a GGUF file to another type.

    Proves that llama.cpp then gives the same token ids as the model's own tokenizer.
    """
    from converters.model_to_gguf import convert_model
    from fedpt.gguf_file import WEIGHTS_KEY, read_gguf
    from fedpt.progress_bar import progress_bar

    kind = kind.upper()
    with progress_bar("Converting") as on_progress:
        convert_model(source, out, kind=kind, pre=pre, on_progress=on_progress)
    _print_result(out, kind, str(read_gguf(out).metadata[WEIGHTS_KEY]))


@app.command(
    epilog="Example:  fedpt convert adapter ./my-adapter my-adapter.gguf --base small.gguf"
)
def adapter(
    folder: Annotated[Path, typer.Argument(help="A PEFT adapter's folder.")],
    out: Annotated[Path, typer.Argument(help="The GGUF file to write.", dir_okay=False)],
    base: Annotated[
        Path, typer.Option(help="The GGUF file of the model that the adapter was trained on.")
    ],
) -> None:
    """Convert a PEFT LoRA adapter to GGUF, for llama.cpp to load beside its base."""
    from converters.adapter_to_gguf import convert_adapter
    from fedpt.adapters import read_peft_folder
    from fedpt.gguf_file import read_gguf, weights_sha256

    base_file = read_gguf(base)
    identity = weights_sha256(base_file)
    convert_adapter(read_peft_folder(folder, base_weights=identity), base_file, out)
    _print_result(out, "F32", identity)


@app.command(
    epilog="Examples:  fedpt convert derive large.gguf ./small  ·"
    "  fedpt convert derive large.gguf ./small --layers 12 --text corpus.txt"
)
def derive(
    source: Annotated[
        Path,
        typer.Argument(help="The large model: GGUF, transformers folder, or owner/name."),
    ],
    out: Annotated[Path, typer.Argument(help="The folder to write.", file_okay=False)],
    layers: Annotated[
        int, typer.Option(help="Layers to keep, the first and last among them.")
    ] = 10,
    text: Annotated[
        Path | None, typer.Option(help="Public text to heal on, besides Python's own.")
    ] = None,
    steps: Annotated[
        int, typer.Option(help="Training steps of healing; more is better and slower.", min=0)
    ] = 240,
    kind: Annotated[str, typer.Option("--type", help="Type of the GGUF file.")] = "Q8_0",
) -> None:
    """Make a small model of a large one: keep some layers, heal them on public text.

    Same tokenizer; OUT gets a transformers folder with model.gguf inside, and derive.json. A second
    run with the same settings does nothing; an interrupted one goes on from its last checkpoint.
    """
    from tempfile import TemporaryDirectory

    from converters.derive import Recipe
    from converters.derive import derive as make
    from converters.hub import local_model
    from converters.model_to_gguf import convert_model
    from converters.public_text import text_file
    from fedpt.progress_bar import progress_bar

    recipe = Recipe(layers=layers, healing_steps=steps, kind=kind.upper())
    texts = text_file(text) if text else []
    with TemporaryDirectory() as folder, progress_bar("deriving") as on_progress:
        large = source
        if not source.is_file():
            large = Path(folder) / "large.gguf"
            convert_model(local_model(source), large, kind="F16")
        derived = make(large, out, recipe, texts=texts, on_progress=on_progress)
    alike = derived.likeness
    print(
        f"{derived.gguf}  KL(large || small) {alike.kl:.3f} nats/token,"
        f" same top token {alike.top1_agreement:.0%}"
    )


def _print_result(path: Path, kind: str, weights: str) -> None:
    size = path.stat().st_size / 1e6
    print(f"{path}  {size:.1f} MB  {kind}  weights {weights[:12]}")
