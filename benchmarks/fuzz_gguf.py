"""Whether libllama lives through damaged files that our check lets pass; ten thousand of each kind.

`python -m benchmarks.fuzz_gguf`: mutates a tiny model of each family and an adapter, checks every
result as any loader of this project does, and loads in child processes what passes. Exits with 1
if a child died, and names the mutation.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks.report import Row, machine, markdown_table
from fedpt.progress import OnProgress, Progress
from fedpt.progress_bar import progress_bar
from tests.fakes.gguf_fuzzing import Fuzzing, fuzz
from tests.fakes.tiny_federation import make_tiny_federation

_MUTATIONS: Final = 10_000
_FAMILIES: Final = ("llama 3 rope", "qwen2", "qwen3", "gemma3", "phi3", "gpt2")


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mutations", type=int, default=_MUTATIONS, help="of each file")
    parser.add_argument("--first", type=int, default=0, help="seed of the first mutation")
    parser.add_argument("--json", action="store_true", help="figures as JSON instead of a table")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, progress_bar("Fuzzing") as on_progress:
        seeds = range(flags.first, flags.first + flags.mutations)
        results = _fuzz_all(Path(folder), seeds, on_progress)
    if flags.json:
        figures = {name: asdict(result) for name, result in results.items()}
        sys.stdout.write(json.dumps({"machine": machine(), "files": figures}, indent=2) + "\n")
    else:
        rows = [_row(name, result) for name, result in results.items()]
        sys.stdout.write("\n".join([machine(), "", *markdown_table(rows)]) + "\n")
    crashes = [crash for result in results.values() for crash in result.crashes]
    for crash in crashes:
        sys.stderr.write(crash + "\n")
    sys.exit(1 if crashes else 0)


def _fuzz_all(folder: Path, seeds: range, on_progress: OnProgress) -> dict[str, Fuzzing]:
    tiny = make_tiny_federation(folder / "tiny")
    work = folder / "work"
    work.mkdir()
    results = {
        "llama adapter": fuzz(
            work, seeds, model=tiny.small, adapter=tiny.adapter_gguf, on_progress=on_progress
        )
    }
    for name, model in {"llama": tiny.small, **_families(folder)}.items():
        on_progress(Progress(0, len(seeds), name))
        results[name] = fuzz(work, seeds, model=model, on_progress=on_progress)
    return results


def _families(folder: Path) -> dict[str, Path]:
    """A tiny GGUF model of each other family that can be converted."""
    from converters.model_to_gguf import convert_model
    from tests.fakes.tiny_families import make_tiny_family

    models = {}
    for number, family in enumerate(_FAMILIES):
        # libllama expects certain tokens of whatever is called phi3
        source = make_tiny_family(folder / f"family-{number}", family)
        models[family] = source.with_suffix(".gguf")
        convert_model(source, models[family], kind="F32")
    return models


def _row(name: str, result: Fuzzing) -> Row:
    return {
        "file": name,
        "mutations": result.tried,
        "refused by the check": result.refused_by_us,
        "refused by libllama": result.refused_by_libllama,
        "loaded and used": result.used,
        "crashes": len(result.crashes),
    }


if __name__ == "__main__":
    main()
