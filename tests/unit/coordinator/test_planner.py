"""Each rule; and whole runs under a simulated clock, with losses and restarts in any order."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from coordinator import planner
from coordinator.planner import (
    AbandonRound,
    Aggregate,
    Distil,
    EndRound,
    Evaluate,
    Finish,
    Situation,
    StartRound,
    StartRun,
)
from coordinator.settings import CoordinatorSettings, DistillationSettings, EvaluationSettings
from coordinator.state import AnyEvent, FederationState, Fleet, Phase, RoundAbandoned, RunFinished
from coordinator.transitions import Wanted, admit, apply, fold
from fedpt.ids import DeviceId
from tests.fakes.histories import (
    DEVICES,
    aggregated,
    evaluated,
    round_ended,
    round_started,
    run_started,
    update_accepted,
    whole_round,
)
from tests.fakes.wire_messages import WEIGHTS, offer, ref, status

SETTINGS = CoordinatorSettings(
    state_dir=Path("s"),
    small=Path("s.gguf"),
    large=Path("l.gguf"),
    evaluation=Path("e.jsonl"),
    public=Path("p.jsonl"),
    rounds=2,
    round_deadline_s=100,
)
ALL_ONLINE = Fleet({DeviceId(device): status() for device in DEVICES})
BEGUN = fold([run_started()])
TRAINING = fold([run_started(), round_started()])
EVALUATING = fold([run_started(), round_started(), update_accepted(), aggregated()])
DISTILLING = apply(EVALUATING, evaluated())


def plan(
    state: FederationState,
    fleet: Fleet = ALL_ONLINE,
    *,
    now: float = 50.0,
    is_job_running: bool = False,
    failed_jobs: int = 0,
    settings: CoordinatorSettings = SETTINGS,
) -> planner.Action | None:
    situation = Situation(state, fleet, WEIGHTS, is_job_running, now, failed_jobs)
    return planner.plan(situation, settings)


def with_settings(**changes: object) -> CoordinatorSettings:
    return SETTINGS.model_copy(update=changes)


def with_status(device: str, **changes: object) -> Fleet:
    return Fleet({**ALL_ONLINE.devices, DeviceId(device): status(**changes)})


def test_a_run_begins_before_anything_else() -> None:
    assert plan(FederationState(), Fleet()) == StartRun()


def test_a_round_starts_with_all_that_are_online() -> None:
    assert plan(BEGUN) == StartRound(1, tuple(map(DeviceId, DEVICES)))
    assert plan(BEGUN, Fleet()) is None


def test_a_round_waits_for_enough_devices() -> None:
    assert plan(BEGUN, settings=with_settings(min_devices=4)) is None


def test_a_share_of_the_devices_is_selected_the_same_after_a_restart() -> None:
    two = with_settings(devices_per_round=2)
    choices = [plan(BEGUN, settings=two) for _ in range(5)]
    assert len(set(choices)) == 1
    assert isinstance(choices[0], StartRound)
    assert len(choices[0].selected) == 2


def test_other_devices_are_selected_in_other_rounds() -> None:
    one = with_settings(devices_per_round=1, rounds=99)
    state, chosen = BEGUN, set()
    for number in range(1, 20):
        action = plan(state, settings=one)
        assert isinstance(action, StartRound)
        chosen |= set(action.selected)
        state = fold([run_started(), *(e for n in range(1, number + 1) for e in whole_round(n))])
    assert chosen == set(DEVICES)


def test_a_device_that_never_answers_does_not_hold_a_round_for_ever() -> None:
    one, state, chosen = with_settings(devices_per_round=1), TRAINING, set()
    for attempt in range(1, 20):
        again = plan(state, now=100.0 * attempt, settings=one)
        assert isinstance(again, StartRound)
        chosen |= set(again.selected)
        state = apply(state, round_started(1, again.selected, deadline=100.0 * (attempt + 1)))
    assert chosen == set(DEVICES)


def test_a_round_waits_while_a_selected_device_may_still_answer() -> None:
    two_of_three = apply(apply(TRAINING, update_accepted("board-1")), update_accepted("board-2"))
    assert plan(two_of_three) is None
    assert plan(two_of_three, with_status("board-3", activity="offline")) is None
    assert plan(apply(two_of_three, update_accepted("board-3"))) == Aggregate()


def test_a_device_that_says_it_cannot_train_is_not_waited_for() -> None:
    two_of_three = apply(apply(TRAINING, update_accepted("board-1")), update_accepted("board-2"))
    assert plan(two_of_three, with_status("board-3", fault="no memory")) == Aggregate()


def test_at_the_deadline_the_updates_that_came_are_enough() -> None:
    assert plan(apply(TRAINING, update_accepted()), now=100.0) == Aggregate()


def test_a_round_without_updates_starts_again_at_its_deadline() -> None:
    assert plan(TRAINING, now=99.9) is None
    assert plan(TRAINING, now=100.0) == StartRound(1, tuple(map(DeviceId, DEVICES)))
    assert plan(TRAINING, Fleet(), now=100.0) is None


def test_when_all_devices_fail_the_round_starts_again_at_its_deadline() -> None:
    failed = Fleet({DeviceId(device): status(fault="no memory") for device in DEVICES})
    assert plan(TRAINING, failed) is None
    assert isinstance(plan(TRAINING, failed, now=100.0), StartRound)


def test_one_job_runs_at_a_time() -> None:
    assert plan(EVALUATING) == Evaluate()
    assert plan(DISTILLING) == Distil()
    assert plan(EVALUATING, is_job_running=True) is None
    assert plan(DISTILLING, is_job_running=True) is None


def test_an_evaluation_that_fails_every_time_abandons_the_round() -> None:
    assert plan(EVALUATING, failed_jobs=2) == Evaluate()
    assert plan(EVALUATING, failed_jobs=3) == AbandonRound()


def test_after_an_abandoned_round_the_next_starts_from_the_same_adapter() -> None:
    abandoned = apply(EVALUATING, RoundAbandoned(reason="not finite", at_unix_s=60.0))
    assert abandoned.adapter == EVALUATING.current.base
    assert isinstance(plan(abandoned), StartRound)


def test_a_distillation_that_fails_every_time_is_left_out() -> None:
    assert plan(DISTILLING, failed_jobs=2) == Distil()
    assert plan(DISTILLING, failed_jobs=3) == EndRound()


def test_without_distillation_a_round_ends_with_its_evaluation() -> None:
    off = with_settings(distillation=DistillationSettings(enabled=False))
    assert plan(DISTILLING, settings=off) == EndRound()


def test_a_run_ends_after_its_rounds() -> None:
    state = fold([run_started(), *whole_round(1), *whole_round(2)])
    assert plan(state) == Finish("2 rounds are done")
    assert plan(apply(state, RunFinished(reason="2 rounds are done"))) is None


def test_a_run_ends_when_the_criterion_is_met() -> None:
    state = fold([run_started(), *whole_round(1)])
    reached = with_settings(evaluating=EvaluationSettings(stop_at_nll=1.0))
    missed = with_settings(evaluating=EvaluationSettings(stop_at_nll=0.9))
    assert plan(state, settings=reached) == Finish("the steered nll 1.000 has reached 1.0")
    assert isinstance(plan(state, settings=missed), StartRound)


@dataclass
class Coordinator:
    """Executes plans at once; journal and clock are a list and a number."""

    settings: CoordinatorSettings
    journal: list[AnyEvent] = field(default_factory=list)
    state: FederationState = field(default_factory=FederationState)
    fleet: Fleet = ALL_ONLINE
    now: float = 0.0
    job: AnyEvent | None = None

    def record(self, event: AnyEvent) -> None:
        self.state = apply(self.state, event)
        self.journal.append(event)

    def restart(self) -> None:
        self.state, self.fleet, self.job = fold(self.journal), Fleet(), None

    def step(self) -> None:
        number = len(self.state.rounds)
        match plan(
            self.state,
            self.fleet,
            now=self.now,
            is_job_running=self.job is not None,
            settings=self.settings,
        ):
            case StartRun():
                self.record(run_started())
            case StartRound(round_, selected):
                self.record(round_started(round_, selected, deadline=self.now + 100))
            case Aggregate():
                self.record(aggregated(number))
            case Evaluate():
                self.job = evaluated()
            case Distil():
                self.job = round_ended(number)
            case Finish(reason):
                self.record(RunFinished(reason=reason))

    def hear_update(self, device: str) -> None:
        made = offer(
            round=len(self.state.rounds),
            base=self.state.adapter,
            update=ref(f"{device} {self.state.adapter}"),
        )
        if admit(self.state, DeviceId(device), made) == Wanted():
            self.record(update_accepted(device, made.update.sha256))

    def happen(self, what: str) -> None:
        if what in DEVICES:
            self.hear_update(what)
        elif what.startswith("status "):
            device = DeviceId(what.removeprefix("status "))
            self.fleet = Fleet({**self.fleet.devices, device: status()})
        elif what.startswith("fault "):
            device = DeviceId(what.removeprefix("fault "))
            self.fleet = Fleet({**self.fleet.devices, device: status(fault="no memory")})
        elif what == "restart":
            self.restart()
        elif what == "deadline":
            self.now += 100
        elif what == "job fails":
            self.job = None
        elif what == "job ends" and self.job is not None:
            job, self.job = self.job, None
            self.record(job)
        self.step()


STORIES = st.lists(
    st.sampled_from(
        [*DEVICES, "restart", "deadline", "job fails", "job ends"]
        + [f"{kind} {device}" for kind in ("status", "fault") for device in DEVICES]
    ),
    max_size=60,
)


@given(STORIES, st.sampled_from([None, 1, 2]))
def test_a_run_finishes_whatever_happened_before(story: list[str], share: int | None) -> None:
    coordinator = Coordinator(with_settings(devices_per_round=share))
    for what in story:
        coordinator.happen(what)
    for _ in range(30):  # from now on things go well
        for what in (*(f"status {device}" for device in DEVICES), *DEVICES, "job ends"):
            coordinator.happen(what)
    assert coordinator.state.phase is Phase.FINISHED
    assert [len(one.updates) > 0 for one in coordinator.state.rounds] == [True, True]


@given(STORIES)
def test_a_restart_changes_no_decision(story: list[str]) -> None:
    coordinator = Coordinator(with_settings(devices_per_round=2))
    for what in story:
        coordinator.happen(what)
        again = replace(coordinator, state=fold(coordinator.journal))
        before = plan(coordinator.state, now=coordinator.now, settings=coordinator.settings)
        assert before == plan(again.state, now=again.now, settings=again.settings)
