"""Which layer is fetched ahead."""

from edge_runtime.training.layer_turns import following_layer


def test_it_goes_forward_through_the_layers_and_back() -> None:
    forward, backward = [0, 1, 2, 3], [2, 1, 0]
    order = [*forward, *backward, 1, 2]  # and forward again
    before = -1
    found = []
    for now in order[:-1]:
        found.append(following_layer(before, now, 4))
        before = now
    assert found == order[1:]


def test_a_single_layer_follows_itself() -> None:
    assert following_layer(-1, 0, 1) == 0
