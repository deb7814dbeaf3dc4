"""`fedpt convert`: models and adapters to GGUF and back.

Each command parses, calls one function and prints one line. What is heavy is imported when called.
"""

from enum import Enum
from pathlib import Path
from typing import Annotated, Final

import typer

from converters.verify_cli import inspect, verify

app: Final = typer.Typer(
    no_args_is_help=True, help="Models and adapters to GGUF and back; small models from large ones."
)


class Form(Enum):
    """What to write."""

    GGUF = "gguf"
    TRANSFORMERS = "transformers"


_TO_HELP: Final = "What OUT is: a GGUF file, or a transformers folder."


@app.command(
    epilog="Examples:  fedpt convert model ./SmolLM2-135M-Instruct small.gguf --type Q4_0"
    "  ·  fedpt convert model small-f16.gguf small-q8.gguf --type Q8_0"
    "  ·  fedpt convert model small-f16.gguf small.gguf --board rpi5 --imatrix text.txt"
    "  ·  fedpt convert model small.gguf ./small --to transformers"
)
def model(
    source: Annotated[
        Path,
        typer.Argument(help="A transformers folder, a GGUF file, or owner/name on the hub."),
    ],
    out: Annotated[Path, typer.Argument(help="The GGUF file or the folder to write.")],
    kind: Annotated[
        str | None,
        typer.Option(
            "--type",
            help="F32, F16, Q8_0, Q4_0, or any other type of llama.cpp's. By default F16; for a"
            " folder F32, which holds every type exactly.",
        ),
    ] = None,
    to: Annotated[Form, typer.Option("--to", help=_TO_HELP)] = Form.GGUF,
    target_size: Annotated[
        str | None,
        typer.Option(help="Instead of a type: the best whose file is not larger, such as 90MB."),
    ] = None,
    board: Annotated[
        str | None,
        typer.Option(help="Instead of a type: the best for this board: rpi4, rpi5, rpi500."),
    ] = None,
    imatrix: Annotated[
        Path | None,
        typer.Option(
            help="Calibration text: columns that matter on it lose less. Loads the model in torch.",
            dir_okay=False,
        ),
    ] = None,
    tensor: Annotated[
        list[str] | None,
        typer.Option(help="Another type for some tensors: REGEX=TYPE. Can be repeated."),
    ] = None,
    pre: Annotated[
        str | None,
        typer.Option(help="llama.cpp's name of the pre-tokenizer, where it is not recognised."),
    ] = None,
) -> None:
    """Convert a model to GGUF, a GGUF file to another type, or to a transformers folder.

    Proves that llama.cpp and the model's own tokenizer give the same token ids.
    """
    from fedpt.shared_cores import let_others_run

    let_others_run()
    from converters.model_to_transformers import convert_to_transformers
    from converters.quantise_model import Wish, quantise_model
    from fedpt.errors import UsageError
    from fedpt.progress_bar import progress_bar

    kind = kind.upper() if kind else None
    wish = Wish(kind, target_size, board, tuple(tensor or ()), imatrix)
    if to is Form.TRANSFORMERS and not wish.is_plain:
        raise UsageError("a transformers folder is not quantised; these flags are for GGUF files")
    with progress_bar("Converting") as on_progress:
        if to is Form.TRANSFORMERS:
            chosen = kind or "F32"
            convert_to_transformers(source, out, kind=chosen, on_progress=on_progress)
        else:
            chosen = quantise_model(
                source, out, wish, pre=pre, on_progress=on_progress, on_note=_tell
            )
    _print_model(out, chosen)


@app.command(
    epilog="Examples:  fedpt convert adapter ./my-adapter my-adapter.gguf --base small.gguf"
    "  ·  fedpt convert adapter my-adapter.gguf ./my-adapter --base small.gguf"
)
def adapter(
    source: Annotated[
        Path, typer.Argument(help="A PEFT adapter's folder, its GGUF file, or owner/name.")
    ],
    out: Annotated[Path, typer.Argument(help="The GGUF file to write, or the PEFT folder.")],
    base: Annotated[
        Path,
        typer.Option(
            help="The model that the adapter was trained on: GGUF of any type, transformers folder,"
            " or owner/name."
        ),
    ],
) -> None:
    """Convert a PEFT LoRA adapter to GGUF, for llama.cpp to load beside its base; or back."""
    from converters.adapter_to_gguf import convert_adapter
    from converters.hub import local_model
    from converters.merge import open_adapter
    from converters.model_header import header_of
    from converters.model_source import open_source
    from converters.output_folder import require_replaceable
    from fedpt.adapters import CONFIG_NAME, write_peft_folder

    model = open_source(local_model(base), name=base.name)
    opened = open_adapter(source, model)
    if source.is_file():
        require_replaceable(out, CONFIG_NAME)
        write_peft_folder(opened, out.absolute())
    else:
        convert_adapter(opened, header_of(model), out)
    _print_result(out, "F32", model.weights)


@app.command(
    epilog="Examples:  fedpt convert merge small.gguf my-adapter.gguf merged.gguf --type Q8_0"
    "  ·  fedpt convert merge ./small ./my-adapter ./merged --to transformers"
)
def merge(
    base: Annotated[
        Path, typer.Argument(help="The model: GGUF, transformers folder, or owner/name.")
    ],
    adapter_path: Annotated[
        Path,
        typer.Argument(
            metavar="ADAPTER", help="A PEFT adapter's folder, its GGUF file, or owner/name."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The GGUF file or the folder to write.")],
    kind: Annotated[
        str | None,
        typer.Option("--type", help="As for model: F16 by default, for a folder F32."),
    ] = None,
    to: Annotated[Form, typer.Option("--to", help=_TO_HELP)] = Form.GGUF,
) -> None:
    """Write a base and its adapter as one model, which needs no adapter at run time."""
    from converters.hub import local_model
    from converters.merge import merged, open_adapter
    from converters.model_source import open_source
    from converters.model_to_gguf import write_model
    from converters.model_to_transformers import write_folder
    from fedpt.progress_bar import progress_bar

    chosen = (kind or ("F32" if to is Form.TRANSFORMERS else "F16")).upper()
    model = open_source(local_model(base), name=base.resolve().name)
    whole = merged(model, open_adapter(adapter_path, model))
    with progress_bar("Merging") as on_progress:
        if to is Form.TRANSFORMERS:
            write_folder(whole, out, kind=chosen, on_progress=on_progress)
        else:
            write_model(whole, out, kind=chosen, on_progress=on_progress)
    _print_model(out, chosen)


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


def _print_model(path: Path, kind: str) -> None:
    from converters.checkpoint import open_checkpoint
    from fedpt.gguf_file import WEIGHTS_KEY, read_gguf

    if path.is_dir():
        weights = open_checkpoint(path, name=path.name).stated[WEIGHTS_KEY]
    else:
        weights = str(read_gguf(path).metadata[WEIGHTS_KEY])
    _print_result(path, kind, weights)


app.command(
    epilog="Examples:  fedpt convert verify small-q4.gguf --against ./SmolLM2-135M-Instruct  ·"
    "  fedpt convert verify q8.gguf q4.gguf --against f16.gguf --plot quality.png"
)(verify)
app.command(epilog="Example:  fedpt convert inspect small.gguf")(inspect)


def _tell(note: str) -> None:
    typer.echo(note, err=True)


def _print_result(path: Path, kind: str, weights: str) -> None:
    files = path.rglob("*") if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files) / 1e6
    print(f"{path}  {size:.1f} MB  {kind}  weights {weights[:12]}")
