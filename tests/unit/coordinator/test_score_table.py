"""The table that people see."""

from coordinator.score_table import score_table
from coordinator.state import Evaluation, Score
from fedpt.wire.messages import SteeringCoefficients


def test_the_best_of_each_column_has_a_star() -> None:
    evaluation = Evaluation(
        scores={
            "large": Score(nll=2.52, exact_match=0.0, rouge_l=0.1),
            "expert": Score(nll=0.3, exact_match=0.056, rouge_l=0.7),
            "steered_calibrated": Score(nll=0.171, exact_match=0.256, rouge_l=0.65),
        },
        coefficients=SteeringCoefficients(alpha=1.0, beta=0.7, gamma=0.4),
        steered_entropy=1.0,
        answers={},
        seconds=1.0,
    )
    *table, calibrated = score_table(evaluation).split("\n")
    assert [line.split() for line in table] == [
        ["nll/token", "exact", "match", "ROUGE-L"],
        ["large", "2.520", "0.0%", "0.100"],
        ["expert", "0.300", "5.6%", "0.700*"],
        ["steered,", "calibrated", "0.171*", "25.6%*", "0.650"],
    ]
    assert len({len(line) for line in table[1:]}) == 1
    assert calibrated == "calibrated: 1 expert + 0.7 large - 0.4 antiexpert"
