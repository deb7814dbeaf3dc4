"""An evaluation as a table for people."""

from coordinator.state import Evaluation


def score_table(evaluation: Evaluation) -> str:
    """The ways to decode, one a line, best values marked with a star."""
    scores = evaluation.scores
    best = (
        min(score.nll for score in scores.values()),
        max(score.exact_match for score in scores.values()),
        max(score.rouge_l for score in scores.values()),
    )
    chosen = evaluation.coefficients
    lines = [f"{'':<20}{'nll/token':>11}{'exact match':>14}{'ROUGE-L':>10}"]
    for name, score in scores.items():
        marks = [
            "*" if value == top else " "
            for value, top in zip((score.nll, score.exact_match, score.rouge_l), best, strict=True)
        ]
        lines.append(
            f"{name.replace('_', ', '):<20}{score.nll:>10.3f}{marks[0]}"
            f"{score.exact_match:>13.1%}{marks[1]}{score.rouge_l:>9.3f}{marks[2]}"
        )
    lines.append(
        f"calibrated: {chosen.alpha:g} expert + {chosen.beta:g} large - {chosen.gamma:g} antiexpert"
    )
    return "\n".join(lines)
