from prometheus_client.parser import text_string_to_metric_families

from edge_runtime.api.api_metrics import ApiMetrics
from edge_runtime.question import Question
from edge_runtime.training_conditions import Readings
from edge_runtime.training_job import TrainingStep
from edge_runtime.training_view import TrainingView
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
    assert len(told) == 23
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


def test_training_and_the_board_are_told_as_far_as_they_are_known() -> None:
    view = TrainingView(
        pid=1,
        is_paused=True,
        step=TrainingStep(done=3, total=12, loss=1.5, tokens_per_s=95.0, seconds_left=60.0),
        paused_s=2.0,
        all_paused_s=7.5,
        readings=Readings(on_mains=False, celsius=83.5),
        failing={"temperature": "83.5 °C, at most 80 °C"},
    )
    told = figures(ApiMetrics(lambda: 0, lambda: view))
    assert told["fedpt_training_running"] == told["fedpt_training_paused"] == 1
    assert told["fedpt_training_done"] == 0.25
    assert told["fedpt_training_tokens_per_second"] == 95
    assert told["fedpt_training_loss"] == 1.5
    assert told["fedpt_training_seconds_left"] == 60
    assert told["fedpt_training_paused_seconds_total"] == 7.5
    assert told["fedpt_training_condition_failstemperature"] == 1
    assert told["fedpt_training_condition_failsload"] == 0
    assert told["fedpt_board_celsius"] == 83.5
    assert told["fedpt_board_on_mains"] == 0
    assert "fedpt_training_held_out_nll" not in told
    assert "fedpt_board_load_of_others" not in told
