"""Scale matching against the definition by loops."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from stscale.losses import scale_matching

Pairs = Literal["all", "pooled"]
both = pytest.mark.parametrize("pairs", ["all", "pooled"])


def naive(z: Any, group: Any, base: Any, base_group: Any, k: int, pairs: Pairs) -> float:
    """The definition, by loops over spots and slices."""
    a = z / np.linalg.norm(z, axis=1, keepdims=True)
    b = base / np.linalg.norm(base, axis=1, keepdims=True)

    def top(i: int, members: Any) -> float:
        return float(np.mean(np.sort(a[i] @ b[members].T)[::-1][:k]))

    slices = sorted(set(base_group.tolist()))
    total = 0.0
    if pairs == "all":
        for c in slices:
            mine = np.flatnonzero(group == c)
            for j in slices:
                if j != c and len(mine):
                    gaps = [(top(i, base_group == c) - top(i, base_group == j)) ** 2 for i in mine]
                    total += float(np.mean(gaps))
        return total
    return sum((top(i, base_group == g) - top(i, base_group != g)) ** 2 for i, g in enumerate(group)) / len(z)


def made(sizes: tuple[int, ...], d: int = 4, seed: int = 0) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    group = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return rng.normal(size=(n, d)), rng.normal(size=(n, d)), group


def value(z: Any, group: Any, base: Any, base_group: Any, k: int, pairs: Pairs) -> Tensor:
    z, group, base, base_group = (torch.as_tensor(v) for v in (z, group, base, base_group))
    return scale_matching(z, group, base, base_group, k=k, pairs=pairs)


@both
def test_vectors(pairs: Pairs, vectors: Callable[[str], dict[str, Any]]) -> None:
    v = vectors("scale_matching")
    group, k, expected = v["slice"].astype(np.int64), int(v["k"]), float(v[f"value_{pairs}"])
    found = value(v["z"], group, v["z_prime"], group, k, pairs)
    assert found.item() == pytest.approx(expected, rel=1e-10)
    single = value(v["z"].astype(np.float32), group, v["z_prime"].astype(np.float32), group, k, pairs)
    assert single.item() == pytest.approx(expected, rel=1e-5)


@both
def test_three_unequal_slices_in_shuffled_order(pairs: Pairs) -> None:
    z, base, group = made((5, 20, 11))
    assert value(z, group, base, group, 3, pairs).item() == pytest.approx(naive(z, group, base, group, 3, pairs))


@both
def test_the_order_of_spots_and_the_names_of_slices_do_not_matter(pairs: Pairs) -> None:
    z, base, group = made((5, 20, 11))
    expected = value(z, group, base, group, 3, pairs).item()
    order = np.random.default_rng(1).permutation(36)
    names = np.array([40, 3, 17])[group]
    assert value(z[order], names[order], base[order], names[order], 3, pairs).item() == pytest.approx(expected)


@both
def test_no_other_slice_wins_where_all_similarities_are_negative(pairs: Pairs) -> None:
    rng = np.random.default_rng(2)
    z, base = rng.random((24, 4)) + 0.1, -rng.random((24, 4)) - 0.1
    group = rng.permutation(np.repeat([0, 1, 2], [4, 8, 12]))
    expected = naive(z, group, base, group, 2, pairs)
    assert expected > 1e-6
    assert value(z, group, base, group, 2, pairs).item() == pytest.approx(expected, rel=1e-6)


@both
def test_a_slice_with_fewer_than_k_candidates_gives_all_it_has(pairs: Pairs) -> None:
    z, base, group = made((1, 3, 20))
    found = value(z, group, base, group, 5, pairs).item()
    assert found == pytest.approx(naive(z, group, base, group, 5, pairs))


@both
def test_one_slice_costs_nothing_and_pulls_nowhere(pairs: Pairs) -> None:
    z = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    group = torch.zeros(8, dtype=torch.int64)
    found = scale_matching(z, group, z.detach(), group, k=2, pairs=pairs)
    found.backward()
    assert found.item() == 0.0
    assert torch.equal(z.grad, torch.zeros(8, 3))


@both
def test_a_bank_larger_than_the_batch(pairs: Pairs) -> None:
    z, base, group = made((4, 6, 5))
    rng = np.random.default_rng(5)
    candidates = np.vstack([base, rng.normal(size=(60, 4))])
    candidate_group = np.concatenate([group, rng.integers(3, size=60)])
    found = value(z, group, candidates, candidate_group, 4, pairs).item()
    assert found == pytest.approx(naive(z, group, candidates, candidate_group, 4, pairs))
    assert found != pytest.approx(naive(z, group, base, group, 4, pairs))


def test_a_slice_of_the_bank_that_the_batch_lacks_is_a_target() -> None:
    z, base, group = made((4, 6))
    rng = np.random.default_rng(5)
    candidates, candidate_group = np.vstack([base, rng.normal(size=(7, 4))]), np.append(group, [2] * 7)
    found = value(z, group, candidates, candidate_group, 2, "all").item()
    assert found == pytest.approx(naive(z, group, candidates, candidate_group, 2, "all"))


@both
def test_gradients_of_both_views(pairs: Pairs) -> None:
    z, base, group = made((3, 5, 4), d=3)
    at = torch.from_numpy(group)
    inputs = tuple(torch.from_numpy(v).requires_grad_() for v in (z, base))
    assert torch.autograd.gradcheck(lambda a, b: scale_matching(a, at, b, at, k=2, pairs=pairs), inputs)
