from prometheus_client.parser import text_string_to_metric_families

from edge_runtime.api.api_metrics import ApiMetrics
from edge_runtime.question import Question
from tests.fakes.api_servers import summary_of


def figures(metrics: ApiMetrics) -> dict[str, float]:
    families = text_string_to_metric_families(metrics.page().decode())
    return {
        one.name + "".join(one.labels.values()): one.value
        for family in families
        for one in family.samples
    }


def test_all_figures_are_there_from_the_start() -> None:
    told = figures(ApiMetrics(lambda: 0))
    assert len(told) == 14
    assert set(told.values()) == {0}


def test_an_answer_is_counted() -> None:
    metrics = ApiMetrics(lambda: 4)
    metrics.count_answer(summary_of("", Question(text="?", mode="steered"), tokens=7, steered=6))
    metrics.count_refusal()
    metrics.count_hang_up()
    told = figures(metrics)
    assert told["fedpt_assistant_answers_totalsteered"] == 1
    assert told["fedpt_assistant_tokens_total"] == 7
    assert told["fedpt_assistant_steered_tokens_total"] == 6
    assert told["fedpt_assistant_round_trips_total"] == 2
    assert told["fedpt_assistant_bytes_up_total"] == 300
    assert told["fedpt_assistant_answer_seconds_total"] == 0.2
    assert told["fedpt_assistant_waiting"] == 4
    assert told["fedpt_assistant_refusals_total"] == told["fedpt_assistant_hang_ups_total"] == 1
