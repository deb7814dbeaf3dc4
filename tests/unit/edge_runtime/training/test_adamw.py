"""Our AdamW is torch's."""

import pytest
import torch

from edge_runtime.training.adamw import AdamW


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_many_steps_end_where_torchs_do(weight_decay: float) -> None:
    start = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    adam = AdamW([ours], weight_decay=weight_decay)
    reference = torch.optim.AdamW([theirs], weight_decay=weight_decay)
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
    AdamW([factor]).step(0.1)
    assert factor.tolist() == [1, 1, 1]
