"""The proximal term's gradient, against autograd's of its formula."""

import torch

from edge_runtime.training.proximal import Proximal


def factors() -> list[torch.nn.Parameter]:
    torch.manual_seed(3)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in ((2, 5), (4, 2))]


def data_loss(parameters: list[torch.nn.Parameter]) -> torch.Tensor:
    first, second = parameters
    return (second @ first).square().sum()


def moved(parameters: list[torch.nn.Parameter]) -> None:
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1 * torch.ones_like(parameter).cumsum(0))


def test_the_gradient_is_that_of_the_formula() -> None:
    ours, theirs = factors(), factors()
    start = [one.detach().clone() for one in theirs]
    proximal = Proximal(ours, 0.7)
    for parameters in (ours, theirs):
        moved(parameters)
    data_loss(ours).backward()
    proximal.add_gradient()
    term = sum((w - w_start).square().sum() for w, w_start in zip(theirs, start, strict=True))
    (data_loss(theirs) + 0.7 / 2 * term).backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_at_the_start_it_pulls_nowhere() -> None:
    parameters = factors()
    proximal = Proximal(parameters, 5.0)
    data_loss(parameters).backward()
    before = [one.grad.clone() for one in parameters if one.grad is not None]
    proximal.add_gradient()
    for parameter, gradient in zip(parameters, before, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_without_strength_nothing_is_added_or_kept() -> None:
    parameters = factors()
    proximal = Proximal(parameters, 0.0)
    moved(parameters)
    proximal.add_gradient()
    assert [one.grad for one in parameters] == [None, None]
    assert proximal._start == []
