"""`fedpt convert`: models and adapters to GGUF.

Each command parses, calls one function and prints one line. What is heavy is imported when called.
"""

from pathlib import Path
from typing import Annotated, Final

import typer

app: Final = typer.Typer(no_args_is_help=True, help="Models and adapters to GGUF.")


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


def _print_result(path: Path, kind: str, weights: str) -> None:
    size = path.stat().st_size / 1e6
    print(f"{path}  {size:.1f} MB  {kind}  weights {weights[:12]}")
