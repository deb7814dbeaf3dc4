"""Scores of generated answers against references."""

from collections.abc import Sequence

from rouge_score.rouge_scorer import RougeScorer


def rouge_l(answers: Sequence[str], references: Sequence[str]) -> float:
    """Mean ROUGE-L F-measure, 0 to 1 (Lin 2004), as the package `rouge-score` computes it."""
    scorer = RougeScorer(["rougeL"])
    scores = [
        scorer.score(reference, answer)["rougeL"].fmeasure
        for answer, reference in zip(answers, references, strict=True)
    ]
    return float(sum(scores) / max(1, len(scores)))
