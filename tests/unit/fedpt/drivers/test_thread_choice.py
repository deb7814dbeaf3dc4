from fedpt.drivers.thread_choice import ThreadChoice


def choose(seconds: dict[int, float]) -> ThreadChoice:
    choice = ThreadChoice(max(seconds))
    while not choice.is_made:
        choice.saw(seconds[choice.threads])
    return choice


def test_fewer_threads_are_taken_where_they_are_faster() -> None:
    assert choose({1: 0.003, 2: 0.006}).threads == 1


def test_more_threads_are_taken_where_they_are_much_faster() -> None:
    assert choose({1: 1.0, 2: 0.6, 4: 0.4}).threads == 4


def test_more_threads_for_next_to_nothing_are_not_taken() -> None:
    assert choose({1: 1.0, 2: 0.6, 4: 0.58}).threads == 2


def test_every_count_up_to_all_cores_is_tried() -> None:
    choice, tried = ThreadChoice(6), set()
    while not choice.is_made:
        tried.add(choice.threads)
        choice.saw(1.0)
    assert tried == {1, 2, 4, 6}


def test_one_slow_moment_does_not_decide() -> None:
    choice = ThreadChoice(2)
    times = iter([9.0, 0.5, 0.1, 0.5, 0.1, 0.5])
    while not choice.is_made:
        choice.saw(next(times))
    assert choice.threads == 1


def test_with_one_core_there_is_nothing_to_try() -> None:
    choice = ThreadChoice(1)
    assert choice.is_made
    assert choice.threads == 1


def test_a_made_choice_stays() -> None:
    choice = choose({1: 0.003, 2: 0.006})
    choice.saw(1e-9)
    assert choice.threads == 1
