from fedpt.drivers.call_size import CallSize


def seen(*calls: tuple[int, float]) -> CallSize:
    size = CallSize()
    for tokens, seconds in calls:
        size.saw(tokens, seconds)
    return size


def test_few_tokens_go_alone_where_a_batch_takes_longer() -> None:
    assert seen((1, 2.6), (4, 19.0)).is_faster_alone(4)


def test_few_tokens_go_together_where_that_is_faster() -> None:
    assert not seen((1, 2.6), (4, 5.0)).is_faster_alone(4)


def test_both_ways_are_tried() -> None:
    size = CallSize()
    assert size.is_faster_alone(4)
    size.saw(1, 2.6)
    assert not size.is_faster_alone(4)


def test_many_tokens_always_go_together() -> None:
    assert not seen((1, 2.6)).is_faster_alone(16)


def test_a_single_token_is_a_batch_of_its_own() -> None:
    assert not CallSize().is_faster_alone(1)


def test_what_was_slow_once_is_tried_again() -> None:
    size = seen((1, 1.0), (4, 5.0))
    for _ in range(20):
        size.saw(1, 2.0)
    assert not size.is_faster_alone(4)
