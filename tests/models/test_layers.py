"""Sparse products, exact normalisation statistics and graph convolutions, against dense forms."""

import numpy as np
import pytest
import torch
from torch import Tensor

from stscale.models.edges import Edges, Pattern
from stscale.models.layers import ConvBlock, MeasuredNorm, drop_features
from stscale.models.memory import LatentRing

ROWS, COLS = 6, 11


def made(dtype: torch.dtype = torch.float64) -> tuple[Edges, Tensor]:
    """A rectangular matrix whose rows end with their self-loop, and the same dense."""
    rng = np.random.default_rng(0)
    dense = np.zeros((ROWS, COLS))
    indptr, indices, weight = [0], [], []
    for i in range(ROWS):
        # column 10 has no entry
        others = rng.permutation([j for j in range(COLS - 1) if j != i])[: i % 4]
        for j in [*others.tolist(), i]:
            dense[i, j] = rng.normal()
            indices.append(j)
            weight.append(dense[i, j])
        indptr.append(len(indices))
    pattern = Pattern(torch.tensor(indptr), torch.tensor(indices), COLS)
    return Edges(pattern=pattern, weight=torch.tensor(weight, dtype=dtype)), torch.tensor(dense, dtype=dtype)


def test_product_and_gradient_equal_the_dense_ones() -> None:
    edges, dense = made()
    g = torch.Generator().manual_seed(0)
    h = torch.randn(COLS, 5, generator=g, dtype=torch.float64).requires_grad_()
    pull = torch.randn(ROWS, 5, generator=g, dtype=torch.float64)
    torch.testing.assert_close(edges @ h, dense @ h)
    found = torch.autograd.grad(((edges @ h) * pull).sum(), h)[0]
    torch.testing.assert_close(found, dense.T @ pull)
    assert torch.autograd.gradcheck(lambda x: edges @ x, (h,))


def test_gradient_of_a_transposed_view_of_the_output() -> None:
    # the incoming gradient is not contiguous then
    edges, dense = made()
    h = torch.randn(COLS, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    pull = torch.arange(18.0, dtype=torch.float64).reshape(3, 6)
    ((edges @ h).T * pull).sum().backward()
    torch.testing.assert_close(h.grad, dense.T @ pull.T)


def test_dropped_keeps_loops_and_the_expected_product() -> None:
    edges, dense = made()
    generator = torch.Generator().manual_seed(0)
    loops = edges.pattern.loops
    others = torch.ones(len(edges.weight), dtype=torch.bool)
    others[loops] = False
    mean = torch.zeros(ROWS, COLS, dtype=torch.float64)
    kept, draws = 0.0, 4000
    for _ in range(draws):
        some = edges.dropped(0.3, generator)
        assert torch.equal(some.weight[loops], edges.weight[loops])
        ratio = some.weight[others] / edges.weight[others]
        assert (torch.isclose(ratio, torch.tensor(1 / 0.7, dtype=ratio.dtype)) | (ratio == 0)).all()
        kept += float((ratio > 0).double().mean()) / draws
        mean += (some @ torch.eye(COLS, dtype=torch.float64)) / draws
    assert kept == pytest.approx(0.7, abs=0.02)
    torch.testing.assert_close(mean, dense, rtol=0.06, atol=1e-12)


def test_dropped_is_drawn_from_the_generator_alone() -> None:
    edges, _ = made()
    first = edges.dropped(0.5, torch.Generator().manual_seed(3)).weight
    assert torch.equal(edges.dropped(0.5, torch.Generator().manual_seed(3)).weight, first)
    assert not torch.equal(edges.dropped(0.5, torch.Generator().manual_seed(4)).weight, first)
    assert edges.dropped(0.0, torch.Generator()) is edges


def test_dropped_gradient_is_that_of_the_thinned_matrix() -> None:
    edges, _ = made()
    some = edges.dropped(0.5, torch.Generator().manual_seed(3))
    thin = some @ torch.eye(COLS, dtype=torch.float64)
    h = torch.ones(COLS, 2, dtype=torch.float64).requires_grad_()
    (some @ h).sum().backward()
    torch.testing.assert_close(h.grad, thin.T @ torch.ones(ROWS, 2, dtype=torch.float64))


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_measured_statistics_are_exact_for_any_chunks(chunk: int) -> None:
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 1.0, 5.0]) + 1e3
    norm = MeasuredNorm(3).train()
    norm.running_mean.fill_(-4.0)
    with norm.measuring():
        for part in x.split(chunk):
            assert norm(part) is part
    exact = x.double()
    torch.testing.assert_close(norm.running_mean.double(), exact.mean(0), rtol=1e-7, atol=0)
    torch.testing.assert_close(
        norm.running_var.double(), exact.var(0), rtol=1e-5, atol=0
    )  # of 1e6 times larger squares
    out = norm.eval()(x).double()
    torch.testing.assert_close(out[:, 1:].mean(0), torch.zeros(2).double(), rtol=0, atol=1e-3)
    torch.testing.assert_close(out[:, 1:].std(0), torch.ones(2).double(), rtol=1e-3, atol=0)


def test_nothing_measured_leaves_the_statistics_and_an_error_ends_the_measuring() -> None:
    norm = MeasuredNorm(2).eval()
    norm.running_mean.fill_(3.0)
    with norm.measuring():
        pass
    assert norm.running_mean.tolist() == [3.0, 3.0]
    with pytest.raises(RuntimeError), norm.measuring():
        norm(torch.ones(4, 3))  # three columns instead of two
    assert norm.running_mean.tolist() == [3.0, 3.0]
    assert torch.allclose(norm(torch.full((1, 2), 4.0)), torch.ones(1, 2), atol=1e-4)


@pytest.mark.parametrize("width", [2, 4, 9])
def test_convolution_equals_the_dense_one_whichever_side_is_narrower(width: int) -> None:
    edges, dense = made()
    torch.manual_seed(0)
    block = ConvBlock(4, width, normalize=False, activate=False, momentum=0.1).double()
    torch.nn.init.normal_(block.linear.bias)
    h = torch.randn(COLS, 4, dtype=torch.float64)
    expected = dense @ h @ block.linear.weight.T + block.linear.bias
    torch.testing.assert_close(block(h, edges), expected)
    block.activate = True
    torch.testing.assert_close(block(h, edges), expected.clamp(min=0))
    normed = ConvBlock(4, width, normalize=True, activate=False, momentum=0.1).double()
    normed.linear.load_state_dict(block.linear.state_dict())
    unit = (expected - expected.mean(0)) / (expected.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(normed(h, edges), unit)


def test_dropped_features_are_whole_columns() -> None:
    x = torch.arange(1.0, 2001).reshape(2, 1000)
    out = drop_features(x, 0.25, torch.Generator().manual_seed(0))
    gone = (out == 0).all(dim=0)
    assert torch.equal(out[:, ~gone], x[:, ~gone])
    assert 200 < int(gone.sum()) < 300
    assert torch.equal(drop_features(x, 0.25, torch.Generator().manual_seed(0)), out)
    assert drop_features(x, 0, torch.Generator()) is x


def test_the_ring_keeps_the_newest() -> None:
    ring = LatentRing(5, 1)
    ring.push(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 1, 2]))
    assert ring.filled()[0][:, 0].tolist() == [0, 1, 2]
    ring.push(torch.tensor([[3.0], [4.0], [5.0], [6.0]]), torch.tensor([3, 4, 5, 6]))
    held, group = ring.filled()
    assert held[:, 0].tolist() == [5, 6, 2, 3, 4]
    assert group.tolist() == [5, 6, 2, 3, 4]
    ring.push(torch.arange(10.0, 22.0)[:, None], torch.arange(10, 22))
    assert sorted(ring.filled()[1].tolist()) == [17, 18, 19, 20, 21]
    assert torch.equal(ring.filled()[0][:, 0].long(), ring.filled()[1])
