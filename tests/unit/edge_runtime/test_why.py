from msgspec.structs import replace

from edge_runtime.why import fallback_note, why_rows, why_text
from fedpt.proxy_tuning import PLAIN
from tests.fakes.answer_facts import STEPS, SUMMARY

STEERED = replace(
    SUMMARY, mode="steered", tokens=4, steered_tokens=4, coefficients=PLAIN, steps=STEPS
)


def test_a_local_answer_says_that_nothing_left_the_board() -> None:
    rows = dict(why_rows(SUMMARY))
    assert rows["answered"] == "by the board alone"
    assert rows["left the board"] == "nothing"
    assert rows["prompt"] == "5 tokens, 3 of them cached"
    assert "round trips" not in rows


def test_a_steered_answer_tells_all_that_it_took() -> None:
    rows = dict(why_rows(STEERED))
    assert rows["answered"] == "steered by the large model"
    assert rows["tokens"] == "4, 4 of them steered"
    assert rows["speed"] == "6.0 tokens/s, the first after 0.50 s"
    assert rows["round trips"] == "2, 100 ms each on the network, 0.25 s waited"
    assert rows["bytes"] == "700 up, 1,500 down"
    assert rows["large model's share"] == "25%: it changed 1 of 4 drafts"
    assert rows["certain at once"] == "4 of 4 drafts"
    assert rows["left the board"] == "31 tokens of question and answer"


def test_a_worker_that_sent_tokens_is_told_from_logits() -> None:
    steps = replace(STEPS, where="tokens", drafts=0)
    rows = dict(why_rows(replace(STEERED, steps=steps)))
    assert rows["steered"] == "by a logit worker, which sent tokens"
    assert "large model's share" not in rows


def test_rows_of_a_server_that_tells_few_tokens_are_marked() -> None:
    rows = dict(why_rows(replace(STEERED, steps=replace(STEPS, is_approximate=True))))
    assert rows["exactness"].startswith("approximate")
    assert "exactness" not in dict(why_rows(STEERED))


def test_a_fallback_is_told_with_its_reason() -> None:
    summary = replace(STEERED, steered_tokens=1, fallback="the coordinator is silent")
    rows = dict(why_rows(summary))
    assert rows["answered"] == "steered by the large model, in part"
    assert rows["fallback"] == "the coordinator is silent"
    note = "[3 of 4 tokens without the large model: the coordinator is silent]"
    assert fallback_note(summary) == note


def test_an_answer_that_was_to_be_steered_and_was_not_names_no_steering() -> None:
    rows = dict(why_rows(replace(STEERED, steered_tokens=0, fallback="offline")))
    assert rows["answered"] == "by the board alone"
    assert rows["tokens"] == "4, 0 of them steered"
    assert not {"steered", "coefficients"} & set(rows)


def test_a_mode_that_was_refused_is_told() -> None:
    summary = replace(SUMMARY, fallback="questions stay on this device")
    assert fallback_note(summary) == "[answered by the board alone: questions stay on this device]"


def test_an_answer_as_it_was_asked_for_needs_no_note() -> None:
    assert fallback_note(SUMMARY) == fallback_note(STEERED) == ""


def test_an_answer_without_a_token_has_no_speed() -> None:
    empty = replace(SUMMARY, tokens=0, first_token_s=0.0, seconds=0.0)
    assert dict(why_rows(empty))["speed"] == "the first after 0.00 s"


def test_the_facts_stand_below_each_other() -> None:
    lines = zip(why_text(STEERED).splitlines(), why_rows(STEERED), strict=True)
    assert len({len(line) - len(fact) for line, (_, fact) in lines}) == 1


def test_a_personal_adapter_is_told_from_the_federations() -> None:
    assert dict(why_rows(SUMMARY))["adapter"] == "a" * 12
    personal = dict(why_rows(replace(SUMMARY, is_personal=True)))
    assert personal["adapter"] == f"{'a' * 12}, personal: trained here, and nowhere else"
