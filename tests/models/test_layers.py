"""Sparse products, exact normalisation statistics and graph convolutions, against dense forms."""

import numpy as np
import pytest
import torch
from torch import Tensor

from stscale.models.edges import Edges, Pattern, stacked
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
    loops = edges.pattern.loops
    others = torch.ones(len(edges.weight), dtype=torch.bool)
    others[loops] = False
    mean = torch.zeros(ROWS, COLS, dtype=torch.float64)
    kept, draws = 0.0, 4000
    for salt in range(draws):
        some = edges.dropped(0.3, salt)
        assert torch.equal(some.weight[loops], edges.weight[loops])
        ratio = some.weight[others] / edges.weight[others]
        assert (torch.isclose(ratio, torch.tensor(1 / 0.7, dtype=ratio.dtype)) | (ratio == 0)).all()
        kept += float((ratio > 0).double().mean()) / draws
        mean += (some @ torch.eye(COLS, dtype=torch.float64)) / draws
    assert kept == pytest.approx(0.7, abs=0.02)
    torch.testing.assert_close(mean, dense, rtol=0.06, atol=1e-12)


def test_whether_an_edge_is_dropped_depends_on_its_name_and_the_salt_alone() -> None:
    edges, _ = made()
    first = edges.dropped(0.5, 3).weight
    assert torch.equal(edges.dropped(0.5, 3).weight, first)
    assert not torch.equal(edges.dropped(0.5, 4).weight, first)
    assert edges.dropped(0.0, 3) is edges
    # the same edges in another order: each keeps its fate
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    names = torch.randint(1 << 62, (1000,), generator=torch.Generator().manual_seed(1))
    one, other = (
        # one long row, whose last entry is its loop
        Edges(pattern=Pattern(torch.tensor([0, 1000]), torch.arange(1000), 1000, n), weight=torch.ones(1000))
        for n in (names, names[order])
    )
    kept, moved = one.dropped(0.4, 9).weight, other.dropped(0.4, 9).weight
    same = (kept[order] == moved)[:-1]
    assert int((~same).sum()) <= 1  # the entry that is the loop of the other order
    assert 0.55 < float((kept > 0).float().mean()) < 0.65


def test_stacked_views_are_blocks_along_the_diagonal() -> None:
    edges, _ = made()
    views = [edges.dropped(0.5, salt) for salt in (1, 2)]
    both = stacked(views)
    blocks = [v @ torch.eye(COLS, dtype=torch.float64) for v in views]
    h = torch.randn(2 * COLS, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    pull = torch.randn(2 * ROWS, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    whole = torch.block_diag(*blocks)
    torch.testing.assert_close(both @ h, whole @ h)
    (found,) = torch.autograd.grad(((both @ h) * pull).sum(), h)
    torch.testing.assert_close(found, whole.T @ pull)
    assert (both.views, stacked(views[:1])) == (2, views[0])


@pytest.mark.parametrize(("views", "seeds"), [(1, None), (1, 4), (2, 4), (2, 7)])
def test_training_normalises_each_view_by_its_seeds(views: int, seeds: int | None) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(views * 7, 3, generator=g, dtype=torch.float64).requires_grad_()
    norm = MeasuredNorm(3, momentum=0.5).double().train()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        norm.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    out = norm(x, views, seeds).view(views, 7, 3)
    h = x.detach().view(views, 7, 3)
    own = h[:, : seeds or 7]
    mean, var = own.mean(1, keepdim=True), own.var(1, keepdim=True, correction=0)
    expected = (h - mean) / torch.sqrt(var + norm.eps) * norm.weight + norm.bias
    torch.testing.assert_close(out, expected)
    running = torch.zeros(3, dtype=torch.float64)
    for v in range(views):
        running = 0.5 * running + 0.5 * mean[v, 0]
    torch.testing.assert_close(norm.running_mean, running)
    weights = torch.randn(views * 7, 3, generator=g, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: norm(x, views, seeds) * weights, (x,))
    if views == 1 and seeds is None:
        plain = torch.nn.BatchNorm1d(3, momentum=0.5).double().train()
        plain.load_state_dict({**norm.state_dict(), "running_mean": torch.zeros(3), "running_var": torch.ones(3)})
        torch.testing.assert_close(plain(x), norm(x))


def test_dropped_gradient_is_that_of_the_thinned_matrix() -> None:
    edges, _ = made()
    some = edges.dropped(0.5, 3)
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
