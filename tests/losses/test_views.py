"""Two views of the same spots: vectors, the definition by loops, gradients, what is held in memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stscale.errors import InputError
from stscale.losses import info_nce, view_mse


def views(n: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=rng, dtype=torch.float64)
    return z, z + torch.randn(n, d, generator=rng, dtype=torch.float64)


def naive(z_s: Tensor, z_f: Tensor, tau: float) -> Tensor:
    """The definition, spot by spot."""
    a, b = (z / z.norm(dim=1, keepdim=True) for z in (z_s, z_f))
    total = a.new_zeros(())
    for i in range(len(a)):
        for own, other in ((a, b), (b, a)):
            positive = torch.exp(own[i] @ other[i] / tau)
            rest = [torch.exp(own[i] @ v[j] / tau) for v in (own, other) for j in range(len(a)) if j != i]
            total = total - torch.log(positive / (positive + sum(rest)))
    return total / (2 * len(a))


class Largest(TorchDispatchMode):
    """Notes the most entries of any tensor made."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.entries = max(self.entries, leaf.numel())
        return out


@pytest.mark.parametrize("block", [7, 512])
def test_vectors(block: int, vectors: Callable[[str], dict[str, Any]]) -> None:
    v = vectors("info_nce")
    z_s, z_f, tau = torch.from_numpy(v["z_s"]), torch.from_numpy(v["z_f"]), float(v["temperature"])
    assert info_nce(z_s, z_f, tau, block=block).item() == pytest.approx(float(v["value"]), rel=1e-10)
    assert info_nce(z_s.float(), z_f.float(), tau, block=block).item() == pytest.approx(float(v["value"]), rel=1e-5)


@pytest.mark.parametrize("block", [1, 4, 13, 100])
def test_the_definition_and_its_gradients(block: int) -> None:
    z_s, z_f = (z.requires_grad_() for z in views(13, 5))
    value, expected = info_nce(z_s, z_f, 0.3, block=block), naive(z_s, z_f, 0.3)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    found, wanted = torch.autograd.grad(2 * value, (z_s, z_f)), torch.autograd.grad(2 * expected, (z_s, z_f))
    for f, w in zip(found, wanted, strict=True):
        torch.testing.assert_close(f, w, rtol=1e-10, atol=1e-14)


def test_parts_with_all_candidates_make_the_whole() -> None:
    z_s, z_f = (z.requires_grad_() for z in views(23, 5))
    parts = [(0, 9), (9, 14), (14, 23)]
    value = sum(
        info_nce(z_s[i:j], z_f[i:j], 0.5, base_s=z_s, base_f=z_f, first=i, block=4) * (j - i) / 23 for i, j in parts
    )
    whole = info_nce(z_s, z_f, 0.5)
    assert value.item() == pytest.approx(whole.item(), rel=1e-12)
    found, wanted = torch.autograd.grad(value, (z_s, z_f)), torch.autograd.grad(whole, (z_s, z_f))
    for f, w in zip(found, wanted, strict=True):
        torch.testing.assert_close(f, w, rtol=1e-10, atol=1e-14)


def test_neither_pass_holds_more_than_a_block() -> None:
    b, d, block = 600, 4, 10
    z_s, z_f = (z.float().requires_grad_() for z in views(b, d))
    with Largest() as forward:
        value = info_nce(z_s, z_f, 0.5, block=block)
    with Largest() as backward:
        value.backward()
    assert forward.entries == block * 2 * b  # and not b × b = 360 000
    assert backward.entries <= 2 * b * d


def test_a_low_temperature_does_not_overflow() -> None:
    z_s, z_f = (z.float().requires_grad_() for z in views(40, 6))
    value = info_nce(z_s, z_f, 1e-3)
    value.backward()
    assert value.item() == pytest.approx(info_nce(z_s.detach().double(), z_f.detach().double(), 1e-3).item(), rel=1e-4)
    assert torch.isfinite(z_s.grad).all()


def test_autocast_is_left() -> None:
    z_s, z_f = (z.float() for z in views(50, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert info_nce(z_s, z_f, 0.5).item() == info_nce(z_s, z_f, 0.5, block=50).item()
        within = info_nce(z_s, z_f, 0.5)
        half = info_nce(z_s.bfloat16(), z_f.bfloat16(), 0.5)
        distance = view_mse(z_s.bfloat16(), z_f.bfloat16())
    assert within.item() == info_nce(z_s, z_f, 0.5).item()
    assert half.dtype == distance.dtype == torch.float32


def test_view_mse_is_the_mean_over_entries() -> None:
    z1, z2 = views(9, 4)
    assert view_mse(z1, z2).item() == pytest.approx(np.square(z1.numpy() - z2.numpy()).mean(), rel=1e-12)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"temperature": 0.0}, "temperature = 0.0"),
        ({"block": 0}, "block = 0"),
        ({"base_s": torch.ones(9, 3)}, "one of base_s and base_f is missing"),
        ({"base_s": torch.ones(4, 3), "base_f": torch.ones(4, 3)}, r"of candidates \(4, 3\)"),
        ({"first": 1}, "from row 1"),
    ],
)
def test_what_does_not_fit(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        info_nce(**{"z_s": torch.ones(6, 3), "z_f": torch.ones(6, 3), "temperature": 0.5, **change})
