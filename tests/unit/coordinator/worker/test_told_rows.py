"""What a device gets to know of a black box's rows, and what it can be certain of by that."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.settings import CoordinatorSettings
from coordinator.worker.admission import Admission
from coordinator.worker.backends.told_logprobs import row_of
from coordinator.worker.serving import limits_of
from coordinator.worker.told_rows import told_to_bytes
from fedpt.decoding.large_row import LargeRow, full_row
from fedpt.decoding.sampling import Chooser, Sampling
from fedpt.decoding.steered_row import steer_row
from fedpt.errors import LargeModelError, TooMuchError
from fedpt.proxy_tuning import Logits
from fedpt.wire.logit_format import Precision, rows_from_bytes
from fedpt.wire.messages import LogitRequest
from fedpt.wire.token_format import id_sets_to_bytes

SIZE = 60
CANDIDATES = [np.array([1, 2])]
rows = st.lists(st.floats(-8, 8, width=32), min_size=SIZE, max_size=SIZE).map(
    lambda values: np.array(values, np.float32)
)


def told(logits: Logits, top: int) -> LargeRow:
    truth = logits - np.logaddexp.reduce(logits.astype(np.float64))
    best = np.argsort(truth)[::-1][:top]
    return row_of([(int(token), float(truth[token])) for token in best], asked=top, size=SIZE)


def received(row: LargeRow, *, largest: int = 8, precision: Precision = "f16") -> LargeRow:
    request = LogitRequest(
        request=1,
        session=b"12345678",
        position=0,
        tokens=b"",
        rows=1,
        largest=largest,
        precision=precision,
        candidates=id_sets_to_bytes(CANDIDATES),
    )
    content = told_to_bytes([row], request, CANDIDATES)
    return rows_from_bytes(content, candidates=CANDIDATES, vocabulary_size=SIZE)[0]


def test_as_many_more_of_the_largest_make_up_for_candidates(rng_row: Logits) -> None:
    assert len(received(told(rng_row, 20)).ids) == 8 + 2
    assert len(received(told(rng_row, 5)).ids) == 5


@given(rows, rows, st.integers(1, 30), st.sampled_from(["f16", "q8", "f32"]))
def test_whatever_a_device_is_certain_of_is_what_the_whole_row_gives(
    logits: Logits, own: Logits, top: int, precision: Precision
) -> None:
    chooser = Chooser(Sampling(), np.zeros(0, np.int64), None)
    steered = steer_row(received(told(logits, top), precision=precision), own, 1.0, chooser)
    if steered.doubt == 0.0:
        whole = steer_row(full_row(logits), own, 1.0, chooser)
        best = whole.distribution.ids[whole.distribution.probabilities.argmax()]
        chosen = steered.distribution.ids[steered.distribution.probabilities.argmax()]
        others = np.delete(logits + own, best)
        assert chosen == best or np.isclose(others.max(), (logits + own)[best], atol=1e-4)


def test_another_number_of_rows_than_was_wanted_is_refused(rng_row: Logits) -> None:
    request = LogitRequest(
        request=1, session=b"12345678", position=0, tokens=b"", rows=2, largest=4
    )
    with pytest.raises(LargeModelError, match="told 1 rows, not 2"):
        told_to_bytes([told(rng_row, 5)], request, CANDIDATES)


@pytest.fixture
def rng_row() -> Logits:
    return np.random.default_rng(3).normal(size=SIZE).astype(np.float32)


def limits(**large: object) -> Admission:
    paths = dict.fromkeys(("state_dir", "small", "large", "evaluation", "public"), "x")
    values = {**paths, "worker": {"large": large}}
    return Admission(limits_of(CoordinatorSettings.model_validate(values)))


SERVER = {"kind": "llama-server", "url": "http://gpu:8080"}


@pytest.mark.parametrize(("top", "largest"), [(5, 16), (20, 64), (256, 1024)])
def test_of_a_black_box_what_may_say_more_is_served(top: int, largest: int) -> None:
    limits(**SERVER, top=top).require_amount(largest=largest, candidates=16)


@pytest.mark.parametrize(("top", "largest"), [(20, 256), (20, 0), (4096, 0)])
def test_of_a_black_box_what_was_told_already_and_whole_rows_are_too_much(
    top: int, largest: int
) -> None:
    with pytest.raises(TooMuchError):
        limits(**SERVER, top=top).require_amount(largest=largest, candidates=16)


def test_of_a_model_of_ours_whole_rows_are_told() -> None:
    limits().require_amount(largest=0, candidates=16)
    limits(kind="transformers", path="m").require_amount(largest=0, candidates=16)
