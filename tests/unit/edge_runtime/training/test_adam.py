"""Our Adam is torch's."""

import torch

from edge_runtime.training.adam import Adam


def test_many_steps_end_where_torchs_do() -> None:
    start = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    adam = Adam([ours])
    reference = torch.optim.AdamW([theirs], weight_decay=0.0)
    for step in range(50):
        reference.param_groups[0]["lr"] = rate = 0.1 / (step + 1)
        for factor in (ours, theirs):
            (factor.square() * factor.sin()).sum().backward()
        adam.step(rate)
        reference.step()
        reference.zero_grad()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    assert ours.grad is None


def test_what_has_no_gradient_stays() -> None:
    factor = torch.nn.Parameter(torch.ones(3))
    Adam([factor]).step(0.1)
    assert factor.tolist() == [1, 1, 1]
