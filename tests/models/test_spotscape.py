"""Spotscape's terms: which there are, what they reach, what they ignore."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from stscale.config import Spotscape as Config
from stscale.graphs.build import knn_graph
from stscale.graphs.csr import block_diagonal
from stscale.models import Minibatch, Spotscape
from stscale.models.edges import layer_edges
from stscale.sampling import TileSampler

CPU = torch.device("cpu")
OFFSETS = np.array([0, 40, 110, 160])
G = 12


def made(config: dict[str, Any] | None = None, slices: int = 3) -> Spotscape:
    torch.manual_seed(0)
    options = {"hidden": 16, "latent": 6, "scale_k": 3, **(config or {})}
    return Spotscape(G, slices, 3, Config(**options), 0)


def minibatch(*, progress: float = 0.0, step: int = 0, mask: bool = False, slices: int = 3) -> Minibatch:
    rng = np.random.default_rng(0)
    graph = block_diagonal([knn_graph(rng.random((n, 2)), 4) for n in np.diff(OFFSETS)])
    sampler = TileSampler(graph, OFFSETS, hops=2, batch_size=96, tile=8, seed=0)
    batch = sampler.batch(step)
    x = torch.from_numpy(rng.normal(size=(160, G)).astype(np.float32)[batch.nodes])
    group = torch.from_numpy(np.searchsorted(OFFSETS, batch.seeds, side="right") - 1)
    return Minibatch(
        x=x,
        target=x[: batch.n_seeds].clone(),
        library=None,
        edges=layer_edges(batch, CPU),
        group=group if slices > 1 else torch.zeros_like(group),
        tile=torch.from_numpy(sampler.tile_of(batch.seeds)),
        tiles=torch.tensor(sampler.tiles),
        mask=(torch.arange(G)[None] + group[:, None]) % 3 > 0 if mask else None,
        step=step,
        progress=progress,
        generator=torch.Generator().manual_seed(step),
    )


def test_prototypes_join_after_the_warm_up() -> None:
    model = made({"warmup": 0.5})
    early = {"telescope", "reconstruction", "scale"}
    assert set(model.terms(minibatch(progress=0.49))) == early
    assert set(model.terms(minibatch(progress=0.5, step=1))) == early | {"prototypes"}
    assert set(model.weights) == early | {"prototypes"}


def test_one_slice_has_nothing_to_match() -> None:
    model = made({"warmup": 0.0}, slices=1)
    assert set(model.terms(minibatch(progress=0.9, slices=1))) == {"telescope", "reconstruction"}


@pytest.mark.parametrize("name", ["telescope", "reconstruction", "prototypes", "scale"])
def test_a_term_of_no_weight_is_absent(name: str) -> None:
    terms = made({f"w_{name}": 0.0, "warmup": 0.0}).terms(minibatch(progress=0.9))
    assert set(terms) == {"telescope", "reconstruction", "prototypes", "scale"} - {name}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"decoder": "mlp", "activation": "relu", "center": False},
        {"scope": "global"},
        {"bank": 50},
        {"telescope": "block", "pairs": "pooled"},
    ],
)
def test_gradients_reach_every_parameter(config: dict[str, Any]) -> None:
    model = made({"warmup": 0.0, **config}).train()
    for step in range(3):  # the running Grams and the bank take part from the second step on
        model.zero_grad()
        terms = model.terms(minibatch(progress=0.9, step=step))
        assert all(torch.isfinite(v) and v > 0 for v in list(terms.values())[: 4 if step else 1])
        torch.stack(list(terms.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # BatchNorm takes off a bias before it
        before_norm = name.endswith("linear.bias") or name == "decoder.layers.0.bias"
        assert before_norm or parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("name", ["telescope", "prototypes", "scale", "reconstruction"])
def test_every_term_alone_trains_the_convolutions(name: str) -> None:
    off = {f"w_{k}": 0.0 for k in ("telescope", "prototypes", "scale", "reconstruction") if k != name}
    model = made({"warmup": 0.0, **off})
    (value,) = model.terms(minibatch(progress=0.9)).values()
    value.backward()
    assert all(c.linear.weight.grad.abs().max() > 0 for c in model.convolutions)


def test_masked_genes_do_not_count() -> None:
    batch = minibatch(mask=True)
    assert batch.mask is not None
    base = made().terms(batch)["reconstruction"].item()

    def with_target(target: torch.Tensor) -> float:
        again = replace(batch, target=target, generator=torch.Generator().manual_seed(0))
        return made().terms(again)["reconstruction"].item()

    assert with_target(torch.where(batch.mask, batch.target, 1e6)) == base
    assert with_target(torch.where(batch.mask, 2 * batch.target, batch.target)) != base


def test_global_scope_tracks_the_grams_of_the_views() -> None:
    model = made({"scope": "global"})
    first = model.terms(minibatch())
    assert first["telescope"].item() == 0.0  # nothing is known of the other spots yet
    g = model.running_g.clone()
    assert torch.allclose(g.trace() + model.running_d.trace(), torch.tensor(1.0), atol=1e-5)
    assert model.terms(minibatch(step=1))["telescope"].item() > 0
    assert not torch.equal(model.running_g, g)


def test_the_bank_keeps_the_latest_second_views() -> None:
    model = made({"bank": 50})
    batch = minibatch()
    plain = made().terms(minibatch())["scale"].item()
    assert model.terms(batch)["scale"].item() == pytest.approx(plain, rel=1e-5)  # empty at first
    assert len(model.bank) == 50
    assert torch.equal(model.bank.filled()[1].bincount(minlength=3), batch.group[-50:].bincount(minlength=3))
    second = minibatch(step=1)
    assert model.terms(second)["scale"].item() > 0
    assert torch.equal(model.bank.filled()[1].bincount(minlength=3), second.group[-50:].bincount(minlength=3))


def test_pair_mean_divides_by_the_ordered_pairs() -> None:
    mean, total = (made({"pair_mean": v}).terms(minibatch())["scale"].item() for v in (True, False))
    assert total == pytest.approx(6 * mean, rel=1e-5)


def test_centroids_are_found_anew_every_so_many_steps() -> None:
    model = made({"warmup": 0.0, "refresh": 2})
    seen = []
    for step in range(4):
        model.terms(minibatch(progress=0.9, step=step))
        seen.append(model.get_buffer("centroids_1").clone())
        assert int(model.get_buffer("centroids_step")) == step // 2 * 2
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])
    assert torch.equal(seen[2], seen[3])
    assert [len(model.get_buffer(f"centroids_{t}")) for t in range(3)] == [3, 5, 6]


def test_state_dict_takes_bank_and_centroids_along() -> None:
    options = {"warmup": 0.0, "bank": 40, "scope": "global", "refresh": 3}
    model, other = made(options), made(options)
    for step in range(2):
        model.terms(minibatch(progress=0.9, step=step))
    state = {k: v.clone() for k, v in model.state_dict().items()}
    assert {"bank.latent", "bank.written", "reservoir.latent", "centroids_0", "centroids_step", "running_c"} <= set(
        state
    )
    assert not torch.equal(other.get_buffer("centroids_0"), state["centroids_0"])
    other.load_state_dict(state)
    for step in (2, 3):  # the second one clusters anew, from the centroids held
        a, b = (m.terms(minibatch(progress=0.9, step=step)) for m in (model, other))
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())


def test_two_views_differ_and_come_from_the_batch_generator() -> None:
    model = made().eval()
    batch = minibatch()
    first, second = model.views(batch).split(batch.n_seeds)
    assert not torch.equal(first, second)
    assert torch.equal(model.views(minibatch()), torch.cat([first, second]))
    assert not torch.equal(model.views(batch), torch.cat([first, second]))  # the generator has moved on
    assert first.shape == (batch.n_seeds, 6)


def test_matching_one_seed_in_three_averages_to_matching_all() -> None:
    # the views differ from step to step, so the batch and its generator are held and the step moves
    def scale(every: int, step: int) -> float:
        batch = replace(minibatch(), step=step)
        return made({"scale_every": every}).terms(batch)["scale"].item()

    parts = [scale(3, step) for step in range(3)]
    assert len({round(p, 9) for p in parts}) == 3
    # seeds of a slice are a multiple of three only by chance: the mean over the parts is close, not equal
    assert np.mean(parts) == pytest.approx(scale(1, 0), rel=0.03)


def test_bf16_leaves_the_terms_in_float32_and_near() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = made({"warmup": 0.0}).terms(minibatch(progress=0.9))
    exact = made({"warmup": 0.0}).terms(minibatch(progress=0.9))
    assert rough.keys() == exact.keys()
    for name, value in rough.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), rel=0.05, abs=1e-4)
    assert any(rough[k].item() != exact[k].item() for k in exact)
