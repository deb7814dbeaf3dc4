"""Many conversations in one batch: each gets what it would get alone, or its own failure."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.worker.batching import Batcher, Context, Job, Told
from fedpt.drivers.llama import LlamaContext, LlamaModel
from fedpt.drivers.llama_runs import Run
from fedpt.errors import FedptError, LargeModelError, ModelFileError, SessionLostError, UsageError
from fedpt.ids import DeviceId
from fedpt.proxy_tuning import Logits
from tests.fakes.tiny_federation import LOGIT_TOLERANCE, TinyFederation

ONE, TWO, THREE = DeviceId("board-1"), DeviceId("board-2"), DeviceId("board-3")


class Counting:
    """A context whose row after a token is that token's id and the text's length; -1 breaks it."""

    def __init__(self, *, can_go_back: bool = True) -> None:
        self.texts: dict[int, list[int]] = {}
        self.batches: list[list[Run]] = []
        self._can_go_back = can_go_back

    def evaluate(self, runs: Sequence[Run]) -> list[Told]:
        self.batches.append(list(runs))
        if any(-1 in run.tokens for run in runs):
            raise UsageError("token -1")
        return [self._evaluated(run) for run in runs]

    def _evaluated(self, run: Run) -> Logits:
        text = self.texts.setdefault(run.sequence, [])
        assert run.position == len(text), "libllama refuses a gap"
        text += run.tokens
        rows = [[token, run.position + place + 1] for place, token in enumerate(run.tokens)]
        return np.float32(rows[len(rows) - run.wanted :]).reshape(-1, 2)

    def forget(self, sequence: int, position: int = 0) -> None:
        text = self.texts.get(sequence, [])
        if 0 < position < len(text) and not self._can_go_back:
            raise ModelFileError("cannot go back")
        del text[position:]


@dataclass
class Asker:
    """Submits jobs and keeps what comes back."""

    batcher: Batcher
    results: dict[str, Told | FedptError] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)

    def ask(
        self, name: str, place: tuple[int, int], tokens: list[int], **more: Any
    ) -> None:  # Any: a job's further fields
        """`place`: slot and position."""

        def note(told: Told | FedptError) -> None:
            self.results[name] = told
            self.order.append(name)

        usual = {"context": "large", "device": ONE, "wanted": 1}
        slot, position = place
        self.batcher.submit(
            Job(slot=slot, position=position, tokens=tokens, on_done=note, **(usual | more))
        )

    def finish(self) -> None:
        while self.batcher.step():
            pass

    def rows(self, name: str) -> Logits:
        told = self.results[name]
        assert isinstance(told, np.ndarray), told
        return told

    def error(self, name: str) -> FedptError:
        told = self.results[name]
        assert isinstance(told, FedptError)
        return told


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def asker(counting: Counting) -> Asker:
    return Asker(Batcher({"large": counting}))


@pytest.fixture(scope="module")
def large(tiny: TinyFederation) -> Iterator[LlamaModel]:
    with LlamaModel(tiny.large) as one:
        yield one


@pytest.mark.llama
def test_interleaved_conversations_get_what_each_would_get_alone(large: LlamaModel) -> None:
    dice = np.random.default_rng(1)
    texts = [dice.integers(3, 384, size).tolist() for size in (3, 60, 40, 50, 1, 64)]
    devices = [ONE, ONE, TWO, TWO, THREE, THREE]
    with (
        LlamaContext(large, tokens=1024, sequences=6, threads=2) as together,
        LlamaContext(large, tokens=512, threads=2) as alone,
    ):
        asker = Asker(Batcher({"large": together}))
        for slot, (text, device) in enumerate(zip(texts, devices, strict=True)):
            cut = (len(text) + 1) // 2
            asker.ask(f"{slot} begin", (slot, 0), text[:cut], device=device)
            asker.ask(f"{slot} end", (slot, cut - 1), text[cut - 1 :], device=device)
            asker.ask(f"{slot} back", (slot, 0), text[: cut + 1], wanted=min(2, cut), device=device)
        asker.finish()
        for slot, text in enumerate(texts):
            cut = (len(text) + 1) // 2
            for name, part, wanted in (
                ("begin", text[:cut], 1),
                ("end", text, 1),
                ("back", text[: cut + 1], min(2, cut)),
            ):
                alone.forget(0)
                (expected,) = alone.evaluate([Run(0, 0, part, wanted)])
                np.testing.assert_allclose(
                    asker.rows(f"{slot} {name}"), expected, atol=LOGIT_TOLERANCE
                )


@given(st.data())
def test_any_jobs_in_any_order_of_steps_get_their_rows(data: st.DataObject) -> None:
    asker = Asker(Batcher({"large": Counting(), "small": Counting()}))
    expected: dict[str, list[list[int]]] = {}
    texts: dict[tuple[str, int], list[int]] = {}
    for number in range(data.draw(st.integers(1, 12))):
        slot, context = data.draw(st.integers(0, 3)), data.draw(st.sampled_from(["large", "small"]))
        tokens = data.draw(st.lists(st.integers(0, 99), min_size=1, max_size=700))
        text = texts.setdefault((context, slot), [])
        position = data.draw(st.integers(0, len(text)))
        wanted = data.draw(st.integers(1, len(tokens)))
        texts[context, slot] = [*text[:position], *tokens]
        asker.ask(
            str(number),
            (slot, position),
            tokens,
            wanted=wanted,
            device=DeviceId(f"board-{slot % 2}"),
            context=context,
        )
        first = len(tokens) - wanted
        expected[str(number)] = [
            [token, position + first + place + 1] for place, token in enumerate(tokens[first:])
        ]
        if data.draw(st.booleans()):
            asker.batcher.step()
    asker.finish()
    assert {name: asker.rows(name).tolist() for name in asker.results} == expected
    assert not asker.batcher._served


def test_jobs_of_one_text_are_done_in_their_order(asker: Asker) -> None:
    for number in range(5):
        asker.ask(str(number), (0, 2 * number), [number, number])
    asker.finish()
    assert asker.order == list("01234")


def test_a_long_prompt_does_not_hold_up_others(asker: Asker, counting: Counting) -> None:
    asker.ask("long", (0, 0), list(range(4000)), device=ONE)
    asker.batcher.step()
    for number in range(6):
        asker.ask(str(number), (1, number), [number], device=TWO)
        asker.batcher.step()
        assert str(number) in asker.results
    assert "long" not in asker.results
    asker.finish()
    assert "long" in asker.results
    assert max(sum(len(run.tokens) for run in batch) for batch in counting.batches) <= 512


def test_the_least_served_device_goes_first(asker: Asker) -> None:
    for slot in range(16):
        asker.ask(f"flood {slot}", (slot, 0), [1] * 100, device=ONE)
    asker.batcher.step()
    asker.ask("quiet", (16, 0), [1] * 32, device=TWO)
    for _ in range(2):  # first comes first, where both are served alike
        asker.batcher.step()
    assert asker.order[:1] == ["quiet"]


def test_who_was_away_has_no_credit(asker: Asker) -> None:
    asker.ask("long", (0, 0), [1] * 5000, device=ONE)
    asker.batcher.step()
    asker.ask("new", (1, 0), [1] * 5000, device=TWO)
    assert asker.batcher._served == {ONE: 512, TWO: 512}


def test_an_error_reaches_only_whom_it_concerns(asker: Asker) -> None:
    asker.ask("good", (0, 0), [1, 2])
    asker.ask("bad", (1, 0), [1, -1], device=TWO)
    asker.ask("good too", (2, 0), [3], device=THREE)
    asker.finish()
    assert isinstance(asker.error("bad"), UsageError)
    assert asker.rows("good").tolist() == [[2, 2]]
    assert asker.rows("good too").tolist() == [[3, 1]]


def test_what_builds_upon_a_failed_job_is_a_lost_session(asker: Asker) -> None:
    asker.ask("bad", (0, 0), [1, -1])
    asker.ask("next", (0, 2), [5])
    asker.finish()
    assert isinstance(asker.error("next"), SessionLostError)
    asker.ask("anew", (0, 0), [1, 5])
    asker.finish()
    assert asker.rows("anew").tolist() == [[5, 2]]


def test_a_slot_that_is_forgotten_drops_its_jobs(asker: Asker, counting: Counting) -> None:
    asker.ask("old", (0, 0), [1] * 600)
    asker.batcher.step()
    asker.ask("others", (1, 0), [1])
    asker.batcher.forget(0)
    assert isinstance(asker.error("old"), SessionLostError)
    asker.finish()
    assert counting.texts[0] == []
    assert asker.rows("others").tolist() == [[1, 1]]


def test_a_model_that_cannot_go_back_makes_the_session_lost_and_is_usable() -> None:
    asker = Asker(Batcher({"large": Counting(can_go_back=False)}))
    asker.ask("first", (0, 0), [1, 2, 3])
    asker.ask("back", (0, 1), [7])
    asker.finish()
    assert isinstance(asker.error("back"), SessionLostError)
    asker.ask("anew", (0, 0), [1, 7])
    asker.finish()
    assert asker.rows("anew").tolist() == [[7, 2]]


def test_a_replaced_model_fails_the_jobs_of_the_old_one(asker: Asker) -> None:
    asker.ask("old", (0, 0), [1] * 600)
    asker.batcher.step()
    asker.batcher.replace("large", Counting())
    assert isinstance(asker.error("old"), LargeModelError)
    asker.ask("gap", (0, 512), [1])
    asker.ask("new", (1, 0), [4])
    asker.finish()
    assert isinstance(asker.error("gap"), SessionLostError)
    assert asker.rows("new").tolist() == [[4, 1]]


def test_a_closed_batcher_fails_what_waits_and_what_comes(asker: Asker) -> None:
    asker.ask("waits", (0, 0), [1])
    asker.batcher.close()
    asker.ask("comes", (0, 0), [1])
    for name in ("waits", "comes"):
        assert isinstance(asker.error(name), SessionLostError)


def test_a_context_may_tell_of_one_failure_itself(counting: Counting) -> None:
    class Careful:
        def evaluate(self, runs: Sequence[Run]) -> list[Told | FedptError]:
            return [
                LargeModelError("silent") if run.sequence == 1 else counting.evaluate([run])[0]
                for run in runs
            ]

        def forget(self, sequence: int, position: int = 0) -> None:
            counting.forget(sequence, position)

    careful: Context = Careful()
    asker = Asker(Batcher({"large": careful}))
    asker.ask("good", (0, 0), [1])
    asker.ask("bad", (1, 0), [1])
    asker.finish()
    assert asker.rows("good").tolist() == [[1, 1]]
    assert str(asker.error("bad")) == "silent"


def test_a_wait_ends_with_a_job_and_with_a_wake(asker: Asker) -> None:
    is_woken = threading.Event()
    waiter = threading.Thread(
        target=lambda: asker.batcher.wait(60, unless=is_woken.is_set), daemon=True
    )
    waiter.start()
    is_woken.set()
    asker.batcher.wake()
    waiter.join(20)
    assert not waiter.is_alive()
    asker.ask("job", (0, 0), [1])
    asker.batcher.wait(60, unless=lambda: False)


def test_a_step_waits_a_moment_for_who_was_in_the_last_one() -> None:
    step_takes_a_second = iter([0.0, 0.0, 1.0, 1.0, 1.0])
    asker = Asker(Batcher({"large": Counting()}, clock=step_takes_a_second.__next__))
    for slot in (0, 1):
        asker.ask(f"first {slot}", (slot, 0), [1])
    assert not asker.batcher.gather(unless=lambda: True)
    asker.batcher.step()
    assert not asker.batcher.gather(unless=lambda: True), "there is nobody to wait with"
    asker.ask("second 0", (0, 1), [1])
    assert asker.batcher.gather(unless=lambda: True)
    asker.ask("second 1", (1, 1), [1])
    assert not asker.batcher.gather(unless=lambda: True)
