"""stMFG: its fusion, its terms, the pairs they read, and runs from slices to domains."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stscale import integrate
from stscale.config import Run, Sample, Train
from stscale.config import Stmfg as Config
from stscale.errors import InputError
from stscale.graphs.build import knn_graph
from stscale.graphs.csr import Graph, block_diagonal
from stscale.losses import info_nce, spatial_regularisation
from stscale.models import METHODS, Minibatch, Stmfg
from stscale.models.attention_fusion import AttentionFusion
from stscale.sampling import Sampler, make_sampler
from stscale.training import DenseInputs, Task, embed, fit
from stscale.training.fit import _prepared
from stscale.training.inputs import propagated
from stscale.training.pair_draw import PairDraw
from stscale.training.standard import Standard

CPU = torch.device("cpu")
OFFSETS = np.array([0, 70, 160, 205])
N, P, GENES = 205, 5, 12
GROUP = np.repeat(np.arange(3, dtype=np.int32), np.diff(OFFSETS))
SMALL: dict[str, Any] = {"hidden": 8, "latent": 6, "decoder": 10, "draws": 4, "scale_k": 3}
TERMS = {"zinb", "nce", "reg", "scale"}


@pytest.fixture(scope="module")
def graphs() -> tuple[Graph, Graph]:
    rng = np.random.default_rng(0)
    near, far = ([knn_graph(rng.random((n, 2)), k) for n in np.diff(OFFSETS)] for k in (5, 3))
    return block_diagonal(near), block_diagonal(far)


def made(options: dict[str, Any] | None = None, slices: int = 3, seed: int = 0) -> Stmfg:
    torch.manual_seed(seed)
    return Stmfg(2 * P, GENES, slices, N, Config(**{**SMALL, **(options or {})}))


def sampler_of(graphs: tuple[Graph, Graph], size: int = 96, hops: int = 1, kind: str = "tile") -> Sampler:
    config = Sample(kind=kind, batch_size=size, tile=8, fan_out=(2,) * hops)
    fan_outs = ((-1,) * hops, (2,) * hops)
    return make_sampler(graphs, OFFSETS, config, hops=hops, seed=1, fan_outs=fan_outs)


@pytest.fixture
def task(graphs: tuple[Graph, Graph], tmp_path: Path) -> Task:
    rng = np.random.default_rng(0)
    components = DenseInputs(tmp_path / "pca.f32", N, P)
    components.array[:] = rng.normal(size=(N, P))
    counts = DenseInputs(tmp_path / "counts.f32", N, GENES)
    counts.array[:] = rng.poisson(rng.gamma(1.0, 2.0, GENES), size=(N, GENES))
    sampler = sampler_of(graphs)
    inputs = propagated(components, graphs, tmp_path / "propagated.f32")
    Standard.measure(inputs).apply(inputs)
    return Task(
        sampler=sampler,
        inputs=inputs,
        targets=counts,
        library=counts.array.sum(axis=1) + 3,
        group=GROUP,
        mask=rng.random((3, GENES)) < 0.8,
        seed=5,
        device=CPU,
        digest="mine",
        pairs=PairDraw(graphs[0], sampler, GROUP, draws=4, seed=5),
    )


def minibatch(task: Task, step: int = 0) -> Minibatch:
    return _prepared(task, step, 20)


def test_attention_weighs_every_channel_of_every_spot() -> None:
    torch.manual_seed(0)
    fusion = AttentionFusion(4, slope=0.2)
    both = torch.randn(7, 8)
    m = fusion.weights(both)
    assert m.shape == (7, 2, 4)
    assert (m > 0).all()
    torch.testing.assert_close(m.sum(dim=1), torch.ones(7, 4))
    assert m[:, 0].std(dim=0).min() > 0
    torch.testing.assert_close(fusion(both), m[:, 0] * both[:, :4] + m[:, 1] * both[:, 4:])
    # the score is LeakyReLU([Z_s ‖ Z_f] W): without a slope, negative scores of both views weigh alike
    score = both @ fusion.score.weight.T
    flat = AttentionFusion(4, slope=0.0)
    flat.load_state_dict(fusion.state_dict())
    negative = (score[:, :4] < 0) & (score[:, 4:] < 0)
    assert negative.any()
    assert (flat.weights(both)[:, 0][negative] == 0.5).all()
    assert (m[:, 0][negative] != 0.5).all()


@pytest.mark.parametrize("without", [(), ("zinb",), ("nce",), ("reg",), ("zinb", "reg")])
def test_terms_left_out_are_absent(task: Task, without: tuple[str, ...]) -> None:
    model = made({"without": without})
    assert set(model.terms(minibatch(task))) == TERMS - {*without}
    assert {k for k, w in model.weights.items() if w} == TERMS - {*without}
    run = Run().replace({"run": {"method": "stmfg"}, "stmfg": {"without": list(without)}})
    recipe = METHODS["stmfg"]
    assert recipe.views
    assert recipe.counts(run) == ("zinb" not in without)
    assert (recipe.pairs(run) > 0) == ("reg" not in without)


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(InputError, match=r"stmfg\.without .* nothing would train"):
        Config(without=("reg", "zinb", "nce"))


def test_one_slice_has_nothing_to_match(task: Task) -> None:
    one = replace(task, group=np.zeros(N, np.int32), mask=None)
    assert set(made(slices=1).terms(minibatch(one))) == TERMS - {"scale"}


@pytest.mark.parametrize("options", [{}, {"fusion": "late", "layers": 3}, {"activation": "relu", "center": True}])
def test_gradients_reach_every_parameter(graphs: tuple[Graph, Graph], task: Task, options: dict[str, Any]) -> None:
    model = made(options).train()
    task = replace(task, sampler=sampler_of(graphs, hops=model.n_layers))
    terms = model.terms(minibatch(task))
    assert all(torch.isfinite(v) and v > 0 for v in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert name == "decoder.inner.bias" or parameter.grad.abs().max() > 0, name  # BatchNorm takes it off


def test_terms_are_those_of_the_latents(task: Task) -> None:
    model = made({"regularise": "sum", "temperature": 0.7, "nce_every": 1})
    batch = minibatch(task)
    terms = model.terms(batch)
    assert batch.pairs is not None
    with torch.no_grad():
        ((h,),) = [[model.layer(0, batch.x, batch.edges[0])]]
        z_s, z_f = h.chunk(2, dim=1)
        assert terms["nce"].item() == pytest.approx(info_nce(z_s, z_f, 0.7).item(), rel=1e-6)
        value = spatial_regularisation(model.fuse(h), batch.pairs, spots=N)
        assert terms["reg"].item() == pytest.approx(value.item(), rel=1e-6)


def test_every_seed_is_contrasted_in_turn(task: Task) -> None:
    batch = minibatch(task)
    whole = made({"nce_every": 1}).terms(batch)["nce"].item()
    part = made({"nce_every": 3})
    counts = [len(range(step % 3, batch.n_seeds, 3)) for step in range(3)]
    values = [part.terms(replace(batch, step=step))["nce"].item() for step in range(3)]
    assert len(set(values)) == 3
    assert np.average(values, weights=counts) == pytest.approx(whole, rel=1e-6)


def test_the_part_of_the_genes_is_right_on_average(task: Task) -> None:
    batch = minibatch(replace(task, mask=None))
    model = made({"genes": 0})
    model.terms(batch)
    batch = replace(batch, step=1)  # rates have started
    whole = model.terms(batch)["zinb"].item()
    part = made({"genes": 3})
    part.load_state_dict(model.state_dict())
    found = []
    for seed in range(100):
        found.append(part.terms(replace(batch, generator=torch.Generator().manual_seed(seed)))["zinb"].item())
    error = np.std(found) / np.sqrt(len(found))
    assert 0 < error < 0.05 * whole
    assert abs(np.mean(found) - whole) < 4 * error


def dense(graph: Graph) -> NDArray[np.float64]:
    a = np.eye(graph.n)
    a[np.repeat(np.arange(graph.n), graph.degree()), graph.indices] = 1
    scale = 1 / np.sqrt(a.sum(axis=1))
    out: NDArray[np.float64] = scale[:, None] * a * scale
    return out


def by_hand(model: Stmfg, x: NDArray[np.float32], graphs: tuple[Graph, Graph]) -> NDArray[np.float64]:
    """The network on whole adjacencies, each convolution σ(Â H W + b), in float64."""
    adjacency = [torch.from_numpy(dense(g)) for g in graphs]
    model = model.double()
    c = model.config
    h = [torch.from_numpy(x.astype(np.float64))] * 2
    linears = [list(model.first), *([conv.linear for conv in pair] for pair in model.convolutions)]
    for i, pair in enumerate(linears):
        last = i == len(linears) - 1
        h = [a @ v for a, v in zip(adjacency, h, strict=True)]
        if i == 0:
            h = [v[:, : c.components] for v in h]
        if i == 0:  # as the inputs of `task` are made
            h = [(v - v.mean(dim=0)) / v.var(dim=0, correction=0).sqrt() for v in h]
        h = [lin(v) for lin, v in zip(pair, h, strict=True)]
        h = h if last and c.activation == "linear" else [v.relu() for v in h]
        if c.fusion == "layer" and not last:
            h = [model.attention[i](torch.cat(h, dim=1))] * 2
    out: NDArray[np.float64] = model.attention[-1](torch.cat(h, dim=1)).detach().numpy()
    return out


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fusion": "late", "components": 3},
        {"layers": 3, "activation": "relu"},
        {"layers": 3, "fusion": "late"},
    ],
)
def test_the_embedding_is_the_dense_network(
    graphs: tuple[Graph, Graph], task: Task, tmp_path: Path, options: dict[str, Any]
) -> None:
    model = made(options)
    found = embed(model, task.inputs, graphs, tmp_path / "layers", device=CPU).rows(np.arange(N))
    components = np.fromfile(tmp_path / "pca.f32", dtype=np.float32).reshape(N, P)
    expected = by_hand(model, components, graphs)
    assert found.shape == (N, 6)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_layer_and_late_fusion_differ(task: Task) -> None:
    early, late = made(), made({"fusion": "late"})
    shared = late.state_dict()
    shared["attention.1.score.weight"] = shared.pop("attention.0.score.weight")
    early.load_state_dict({**early.state_dict(), **shared})  # the same weights, but for the fusion between
    batch = minibatch(task)
    with torch.no_grad():
        assert (early(batch.x, batch.edges) - late(batch.x, batch.edges)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["tile", "neighbor"])
def test_pairs_of_the_sampler_are_right_on_average(graphs: tuple[Graph, Graph], kind: str) -> None:
    sampler = sampler_of(graphs, size=100, kind=kind)
    draw = PairDraw(graphs[0], sampler, GROUP, draws=6, seed=2)
    assert not len(draw.rarely_across())
    z = torch.from_numpy(np.random.default_rng(1).normal(size=(N, 4)) + 0.7)
    unit = torch.nn.functional.normalize(z, dim=1)
    linked = dense(graphs[0]) > 0
    same = (GROUP[:, None] == GROUP) & ~np.eye(N, dtype=bool)
    cosine = (unit @ unit.T).numpy()
    losses = np.where(linked, np.logaddexp(0, -cosine), np.logaddexp(0, cosine))
    expected = losses[same].sum() / N
    found, edges, others = [], [], []
    for step in range(600):
        pairs = draw.at(step, CPU)
        found.append(spatial_regularisation(z[sampler.seeds(step)], pairs, spots=N).item())
        edges.append(pairs.edge_weight.sum().item())
        others.append(pairs.other_weight.sum().item())
    assert pairs.all_edges == (linked & same).sum()
    assert pairs.all_others == (~linked & same).sum()
    for values, value in ((found, expected), (edges, pairs.all_edges), (others, pairs.all_others)):
        error = np.std(values) / np.sqrt(len(values))
        assert error < 0.05 * value
        assert abs(np.mean(values) - value) < 4 * error
    again = PairDraw(graphs[0], sampler_of(graphs, size=100, kind=kind), GROUP, draws=6, seed=2).at(599, CPU)
    assert torch.equal(again.others, pairs.others)
    assert torch.equal(again.other_weight, pairs.other_weight)


def test_slices_of_which_a_batch_holds_one_tile_are_named(graphs: tuple[Graph, Graph]) -> None:
    sampler = sampler_of(graphs, size=40)  # 5 of 27 tiles: 1.7, 2.0 (of 9, 12) and 1.1 (of 6) of a slice
    named = PairDraw(graphs[0], sampler, GROUP, draws=2, seed=0).rarely_across()
    per_batch = np.array(sampler.tiles) / sampler.batches_per_epoch
    assert np.array_equal(named, np.flatnonzero(per_batch < 2))
    assert 0 < len(named) < 3 or per_batch.max() < 2


class StoppedError(Exception):
    """The power cut."""


def test_a_stopped_training_ends_with_the_same_bits(task: Task, tmp_path: Path) -> None:
    train = Train(steps=16, lr=1e-2, checkpoint_every=5, log_every=3)

    def stop(entry: dict[str, Any]) -> None:
        if entry["step"] >= 9:
            raise StoppedError

    whole = made()
    history = fit(whole, task, train, tmp_path / "whole", lambda _: None)
    with pytest.raises(StoppedError):
        fit(made(), task, train, tmp_path / "cut", stop)
    assert sorted(p.name for p in (tmp_path / "cut").glob("step-*")) == ["step-0000005.pt"]
    second = made(seed=9)
    assert fit(second, task, train, tmp_path / "cut", lambda _: None) == history
    one, two = whole.state_dict(), second.state_dict()
    assert [k for k in one if not torch.equal(one[k], two[k])] == []
    assert set(history[-1]) == TERMS | {"step", "loss"}
    assert history[-1]["loss"] < history[0]["loss"]


COMMON = [
    *("--method", "stmfg", "--threads", "1", "--device", "cpu", "-k", "3", "--set", "preprocess.n_pcs=10"),
    *("--set", "train.steps=8", "--set", "stmfg.hidden=16", "--set", "stmfg.latent=8", "--set", "stmfg.genes=20"),
    *("--set", "domains.n_init=1", "--set", "domains.n_components=6", "--set", "sample.tile=16"),
]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from stscale.config import Simulate
    from stscale.slices.simulate import simulate

    folder = tmp_path_factory.mktemp("slices")
    simulate(folder, slices=2, spots=200, genes=60, seed=0, config=Simulate(empty_fraction=0.02, domains=3))
    return folder


def test_the_command_line(stscale_: Any, simulated: Path, tmp_path: Path) -> None:
    given = sorted(simulated.glob("*.zarr"))
    code, _, error = stscale_("integrate", *given, "-o", tmp_path / "run", *COMMON)
    assert code == 0, error
    out = anndata.read_zarr(tmp_path / "run" / "integrated.zarr")
    empty = np.isnan(out.obsm["X_stscale"]).any(axis=1)
    assert out.n_obs == 400
    assert out.obsm["X_stscale"].shape[1] == 8
    assert 0 < empty.sum() < 20
    assert out.obs["stscale_domain"].isna().to_numpy().tolist() == empty.tolist()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    last = manifest["stages"]["train"]["history"][-1]
    assert set(last) == TERMS | {"step", "loss"}


def test_lognormalized_slices_are_refused_in_one_line(simulated: Path, tmp_path: Path) -> None:
    config = Run().replace({"run": {"method": "stmfg"}, "preprocess": {"lognormalized": True}})
    with pytest.raises(InputError, match=r"stmfg'? reconstructs raw counts .*give .*, or leave"):
        integrate(sorted(simulated.glob("*.zarr")), out=tmp_path / "run", config=config)
    assert not (tmp_path / "run").exists()
