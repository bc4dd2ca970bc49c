"""MHAL: which terms there are, what they reach, exact embedding, resuming, the assignment."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from made_two_views import GENES, SMALL, N, domains, graphs, made_task, network
from mhal_rank import steps

from stscale.analysis.assignment import Prototypes, assign, cosines, fused_adjacency, merged
from stscale.analysis.metrics import ari
from stscale.config import Mhal as Config
from stscale.config import Run, Simulate, Train
from stscale.errors import InputError
from stscale.models import METHODS, Mhal, Shape
from stscale.models.edges import layer_edges
from stscale.models.token_attention import TokenAttention, WeightedFusion
from stscale.models.zinb_decoder import ZinbDecoder, drawn_genes
from stscale.rundir import read_manifest
from stscale.sampling import Expander
from stscale.slices.simulate import simulate
from stscale.training import Task, checkpoint, embed, fit
from stscale.training.fit import _prepared

CPU = torch.device("cpu")
TERMS = {"psa", "zinb", "pcl"}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return made_task(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def one_hop(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return made_task(tmp_path_factory.mktemp("one"), hops=1)


@pytest.fixture(scope="module")
def trained(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Mhal:
    model = network()
    fit(model, task, Train(steps=60, lr=1e-2), tmp_path_factory.mktemp("trained"), lambda _: None)
    return model


def dense_forward(model: Mhal, task: Task) -> torch.Tensor:
    edges = layer_edges(Expander(graphs(), model.n_layers).expand(np.arange(N)), CPU)
    with torch.no_grad():
        return model.eval()(torch.from_numpy(task.inputs.rows(np.arange(N))), edges)


@pytest.mark.parametrize("without", [(), ("pcl",), ("psa",), ("zinb",), ("saf",), ("gw",), ("saf", "zinb", "gw")])
def test_what_is_left_out_is_absent_and_the_rest_trains(task: Task, one_hop: Task, without: tuple[str, ...]) -> None:
    model = network({"without": without}).train()
    for step in range(2):
        terms = model.terms(_prepared(one_hop if "saf" in without else task, step, 2))
        assert set(terms) == TERMS - set(without)
        assert all(torch.isfinite(v) and v > 0 for v in terms.values())
        model.zero_grad()
        torch.stack([model.weights[k] * v for k, v in terms.items()]).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # BatchNorm takes off a bias before it
        before_norm = (name.startswith("convolutions") and name.endswith("linear.bias")) or name == "decoder.inner.bias"
        assert before_norm or parameter.grad.abs().max() > 0, name
    assert ("attention.inner.weight" in model.state_dict()) == ("saf" not in without)
    moved = "pcl" not in without and "gw" not in without
    assert ("graph" in model.state_dict() and not torch.equal(model.graph, torch.eye(3))) == moved
    if "pcl" not in without:
        torch.testing.assert_close(model.graph.sum(dim=1), torch.ones(3))
        assert model.mass.sum().item() == pytest.approx(1, abs=1e-6)


def test_scale_matching_needs_several_slices_and_a_weight(task: Task, tmp_path: Path) -> None:
    terms = network({"w_scale": 1.0}).terms(_prepared(task, 0, 2))
    assert set(terms) == TERMS | {"scale"}
    assert terms["scale"].item() > 0
    one = made_task(tmp_path, slices=1)
    assert set(network({"w_scale": 1.0}, slices=1).terms(_prepared(one, 0, 2))) == TERMS


def test_no_spot_is_its_own_candidate_in_scale_matching(task: Task) -> None:
    # far apart spots: whoever met itself would find a cosine of 1
    model = network({"w_scale": 1.0, "scale_k": 1, "scale_every": 2})
    batch = _prepared(task, 0, 2)
    z = torch.eye(batch.n_seeds)
    assert model._scale(z, batch).item() == 0
    assert model._scale(torch.ones_like(z), batch).item() == pytest.approx(0, abs=1e-6)


def test_masked_genes_do_not_count(tmp_path: Path) -> None:
    batch = _prepared(made_task(tmp_path, masked=True), 1, 2)
    assert batch.mask is not None

    def value(target: torch.Tensor) -> float:
        return network().terms(replace(batch, target=target))["zinb"].item()

    base = value(batch.target)
    assert value(torch.where(batch.mask, batch.target, 999)) == base
    assert value(torch.where(batch.mask, batch.target + 1, batch.target)) != base


def test_a_part_of_the_genes_stands_for_all_of_them(task: Task) -> None:
    batch = _prepared(task, 1, 2)
    whole = network().terms(batch)["zinb"].item()
    part = network({"genes": 8})
    values = []
    for i in range(60):
        again = replace(batch, generator=torch.Generator().manual_seed(i))
        values.append(part.terms(again)["zinb"].item())
    assert np.mean(values) == pytest.approx(whole, abs=4 * np.std(values) / np.sqrt(60))
    assert drawn_genes(GENES, 0, batch.generator) is None
    assert drawn_genes(GENES, GENES, batch.generator) is None


def test_the_decoder_starts_at_the_genes_own_rates(task: Task) -> None:
    batch = _prepared(task, 0, 2)
    assert batch.library is not None
    decoder = ZinbDecoder(4, 8, GENES)
    decoder.start(batch.target, batch.library)
    rate = batch.target.sum(dim=0) / batch.library.sum()
    torch.testing.assert_close(decoder.rate.bias.exp(), rate, rtol=0.05, atol=1e-3)
    logits, log_mean, log_theta = decoder(torch.randn(len(batch.library), 4), batch.library)
    twice = decoder(torch.randn(len(batch.library), 4), 2 * batch.library)
    assert logits.shape == log_mean.shape == batch.target.shape
    assert log_theta.shape == (GENES,)
    offset = (twice[1] - twice[1].mean(1, keepdim=True)).isfinite()
    assert offset.all()
    decoder.eval()
    z = torch.randn(len(batch.library), 4)
    shift = decoder(z, 2 * batch.library)[1] - decoder(z, batch.library)[1]
    torch.testing.assert_close(shift, torch.full_like(shift, float(np.log(2))))


@pytest.mark.parametrize("stop", [7, 23])
def test_a_stopped_training_ends_with_the_same_bits(task: Task, tmp_path: Path, stop: int) -> None:
    train = Train(steps=30, lr=1e-2, checkpoint_every=5, log_every=1)
    options = {"w_scale": 1.0, "genes": 9}
    whole = network(options)
    history = fit(whole, task, train, tmp_path / "whole", lambda _: None)

    def report(entry: dict[str, Any]) -> None:
        if entry["step"] == stop:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fit(network(options), task, train, tmp_path / "cut", report)
    newest = checkpoint.latest(tmp_path / "cut")
    assert newest is not None
    assert newest.name == f"step-{(stop - 1) // 5 * 5:07d}.pt"
    resumed = network(options, seed=99)
    assert fit(resumed, task, train, tmp_path / "cut", lambda _: None) == history
    one, two = whole.state_dict(), resumed.state_dict()
    assert [k for k in one if not torch.equal(one[k], two[k])] == []
    assert not torch.equal(whole.mass, torch.full((3,), 1 / 3))


@pytest.mark.parametrize("without", [(), ("saf",)])
def test_embedding_equals_the_whole_forward(
    task: Task, one_hop: Task, tmp_path: Path, without: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = one_hop if without else task
    monkeypatch.setattr(importlib.import_module("stscale.training.embed"), "ROWS", 37)
    model = network({"without": without})
    fit(model, task, Train(steps=6, lr=1e-2), tmp_path / "c", lambda _: None)
    before = dense_forward(model, task)
    z = embed(model, task.inputs, graphs(), tmp_path / "scratch", device=CPU)
    after = dense_forward(model, task)
    torch.testing.assert_close(torch.from_numpy(np.array(z.array)), after, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(before, after, atol=1e-4)  # what was measured is not what the last batches left


def test_eta_is_the_mean_attention_of_all_spots(task: Task, trained: Mhal, tmp_path: Path) -> None:
    embed(trained, task.inputs, graphs(), tmp_path, device=CPU)
    edges = layer_edges(Expander(graphs(), 1).expand(np.arange(N)), CPU)[0]
    with torch.no_grad():
        views = trained.layer(0, torch.from_numpy(task.inputs.rows(np.arange(N))), edges)
        attention = trained.attention(*views.chunk(2, dim=1))[2]
    assert 0 < trained.eta.centre.item() < 1
    assert trained.eta.centre.item() == pytest.approx(attention[:, :, 1].mean().item(), abs=1e-6)
    assert trained.eta.centre.item() != pytest.approx(0.5, abs=1e-4)


def test_attention_of_two_tokens_by_hand() -> None:
    torch.manual_seed(0)
    module = TokenAttention(6, 2)
    z = torch.randn(5, 2, 6)
    first, second, attention = module(z[:, 0], z[:, 1])
    torch.testing.assert_close(attention.sum(dim=2), torch.ones(5, 2))
    parts = module.inner(z).view(5, 2, 3, 2, 3)
    for i in range(5):
        mixed, weights = [], []
        for h in range(2):
            q, k, v = parts[i, :, 0, h], parts[i, :, 1, h], parts[i, :, 2, h]
            a = torch.softmax(q @ k.T / 3**0.5, dim=1)
            mixed.append(a @ v)
            weights.append(a)
        expected = z[i] + module.outer(torch.cat(mixed, dim=1))
        torch.testing.assert_close(torch.stack([first[i], second[i]]), expected)
        torch.testing.assert_close(attention[i], torch.stack(weights).mean(dim=0))


def test_fusion_weights_have_length_one() -> None:
    torch.manual_seed(0)
    h = torch.randn(7, 12)
    plain = WeightedFusion(4, 3, skip=False)
    inner = plain.mlp
    plain.mlp = torch.nn.Identity()
    weight = (plain(h) / h).view(7, 3, 4)
    torch.testing.assert_close(weight[:, :, 0].square().sum(dim=1), torch.ones(7))
    torch.testing.assert_close(weight, weight[:, :, :1].expand(7, 3, 4))
    assert (weight > 0).all()
    plain.mlp = inner
    skipping = WeightedFusion(4, 3, skip=True)
    skipping.load_state_dict(plain.state_dict())
    torch.testing.assert_close(skipping(h) - plain(h), (h.view(7, 3, 4) * weight).sum(dim=1))


def made_prototypes(trained: Mhal) -> Prototypes:
    return Prototypes.of(trained.state_dict())


@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_the_assignment_holds_its_marginals_and_finds_the_domains(
    task: Task, trained: Mhal, tmp_path: Path, alpha: float
) -> None:
    z = np.array(embed(trained, task.inputs, graphs(), tmp_path, device=CPU).array)
    prototypes = made_prototypes(trained)
    found = assign(z, prototypes, graphs(), alpha=alpha, k=3)
    assert found.converged or alpha  # with structure the last steps crawl
    assert found.change < 5e-3
    np.testing.assert_allclose(found.plan.sum(axis=1), 1 / N, rtol=1e-3)
    np.testing.assert_allclose(found.plan.sum(axis=0), prototypes.mass, atol=1e-3)
    assert found.labels.dtype == np.int32
    sizes = np.bincount(found.labels)
    assert (np.diff(sizes) <= 0).all()
    assert ari(domains().astype(str), found.labels) > 0.7
    again = assign(z, prototypes, graphs(), alpha=alpha, k=3)
    np.testing.assert_array_equal(again.labels, found.labels)


def test_structure_pulls_a_lone_spot_to_its_neighbours(task: Task, trained: Mhal, tmp_path: Path) -> None:
    z = np.array(embed(trained, task.inputs, graphs(), tmp_path, device=CPU).array)
    prototypes = made_prototypes(trained)
    plain = assign(z, prototypes, graphs(), alpha=0.0, k=3).labels
    lone, other = 10, 50
    assert (plain[7:14] == plain[lone]).all()
    assert plain[other] != plain[lone]
    z[lone] = z[other]
    # domains are numbered by size anew: who is with whom is what counts
    by_features = assign(z, prototypes, graphs(), alpha=0.0, k=3).labels
    assert by_features[lone] == by_features[other]
    assert by_features[lone] != by_features[lone - 1]
    structured = assign(z, prototypes, graphs(), alpha=0.7, k=3).labels
    assert structured[lone] == structured[lone - 1]
    assert structured[lone] != structured[other]


def test_the_fused_adjacency_is_the_mixture_of_the_normalised_graphs() -> None:
    dense = []
    for graph in graphs():
        a = np.eye(N)
        a[np.repeat(np.arange(N), graph.degree()), graph.indices] = 1
        dense.append(a / np.sqrt(np.outer(a.sum(1), a.sum(1))))
    found = fused_adjacency(graphs(), 0.3)
    np.testing.assert_allclose(found.toarray(), 0.3 * dense[1] + 0.7 * dense[0], atol=1e-6)
    assert found.nnz < 20 * N


def test_cosines_are_taken_chunk_by_chunk(trained: Mhal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stscale.analysis.assignment.ROWS", 7)
    z = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    s = made_prototypes(trained).vectors.numpy()
    expected = (z @ s.T) / np.outer(np.linalg.norm(z, axis=1), np.linalg.norm(s, axis=1))
    np.testing.assert_allclose(cosines(z, torch.from_numpy(s)).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_prototypes_are_merged_to_the_domains(task: Task, trained: Mhal, tmp_path: Path) -> None:
    vectors = torch.tensor([[1.0, 0.1], [0.1, 2.0], [5.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    found = merged(vectors, 3)
    assert found[0] == found[2]
    assert found[1] == found[3]
    assert sorted(set(found)) == [0, 1, 2]
    np.testing.assert_array_equal(merged(vectors, 5), np.arange(5))
    z = np.array(embed(trained, task.inputs, graphs(), tmp_path, device=CPU).array)
    assert set(assign(z, made_prototypes(trained), graphs(), alpha=0.0, k=2).labels) == {0, 1}


def test_a_network_without_prototypes_assigns_nothing() -> None:
    with pytest.raises(InputError, match="trained without prototypes"):
        Prototypes.of(network({"without": ["pcl"]}).state_dict())


@pytest.mark.parametrize(("prototypes", "spots", "expected"), [(30, 4000, 30), (30, 24, 3), (30, 5, 1), (2, 4000, 2)])
def test_prototypes_are_no_more_than_the_data_hold(prototypes: int, spots: int, expected: int) -> None:
    run = Run().replace({"run": {"method": "mhal"}, "mhal": {**SMALL, "prototypes": prototypes}})
    model = METHODS["mhal"].make(run, Shape(width=12, genes=GENES, slices=1, spots=spots))
    assert isinstance(model, Mhal)
    assert model.prototypes.shape == (expected, 8)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"without": ["psa", "psa"]}, "names a part twice"),
        ({"without": ["sap"]}, "expected"),
        ({"heads": 5}, "does not divide"),
        ({"without": ["psa", "pcl", "zinb"]}, "nothing would train"),
        ({"phi": 1.0, "w_zinb": 0.0, "w_psa": 0.0}, "nothing would train"),
        ({"phi": 0.0, "without": ["pcl"]}, "nothing would train"),
        ({"scale_every": 1}, "at least 2"),
    ],
)
def test_options_that_contradict_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Config(**options)


ASSIGNED: dict[str, dict[str, Any]] = {"run": {"method": "mhal"}, "domains": {"method": "assignment"}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"domains": {"method": "assignment"}}, "is for mhal"),
        ({**ASSIGNED, "mhal": {"without": ["pcl"]}}, "needs trained prototypes"),
        ({**ASSIGNED, "domains": {"method": "assignment", "per_slice": True}}, "joint over the slices"),
        (
            {**ASSIGNED, "domains": {"method": "assignment", "k": 9}, "mhal": {"prototypes": 5}},
            "as many prototypes or more",
        ),
        (ASSIGNED, "domains.k = None"),
        ({"run": {"method": "mhal"}, "preprocess": {"lognormalized": True}}, r"mhal.without = \['zinb'\]"),
    ],
)
def test_sections_that_contradict_are_refused(changes: dict[str, dict[str, Any]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Run().replace(changes).check_sections()


def test_two_ranks_have_the_terms_and_gradients_of_one_process(tmp_path: Path) -> None:
    script = Path(__file__).with_name("mhal_rank.py")
    arguments = [[sys.executable, str(script), str(tmp_path), str(rank), "2"] for rank in range(2)]
    processes = [subprocess.Popen(a, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for a in arguments]
    one = steps(tmp_path, (0, 1))
    try:
        said = [p.communicate(timeout=120)[0] for p in processes]
    finally:
        for process in processes:
            process.kill()
    assert [p.returncode for p in processes] == [0, 0], said
    for rank in range(2):
        two = torch.load(tmp_path / f"found-{rank}.pt")
        for a, b in zip(one["steps"], two["steps"], strict=True):
            assert set(a["terms"]) == set(b["terms"]) == TERMS | {"scale"}
            for name, value in a["terms"].items():
                assert b["terms"][name] == pytest.approx(value, rel=1e-5), name
            for name, g in a["grads"].items():
                torch.testing.assert_close(b["grads"][name], g, rtol=1e-3, atol=2e-5)
        for name, held in one["buffers"].items():
            torch.testing.assert_close(two["buffers"][name], held, rtol=1e-4, atol=2e-5)


TINY = [
    "train.steps=12",
    "preprocess.n_pcs=8",
    "views.spatial_k=6",
    "mhal.hidden=16",
    "mhal.latent=8",
    "domains.n_init=2",
]


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("slices")
    return simulate(
        folder / "made", config=Simulate(domains=3, empty_fraction=0.05), slices=2, spots=220, genes=120, seed=0
    )


@pytest.mark.parametrize(("count", "how"), [(1, "assignment"), (2, "gmm")])
def test_the_command(
    slices: list[Path], tmp_path: Path, stscale_: Callable[..., tuple[int, str, str]], count: int, how: str
) -> None:
    settings = [f"--set={text}" for text in (*TINY, "mhal.w_scale=0.5", f"domains.method={how}")]
    common = ["--method", "mhal", "-k", "3", "--threads", "1", "--device", "cpu", "-q", *settings]
    code, _, said = stscale_("integrate", *slices[:count], "-o", tmp_path / "run", *common)
    assert (code, said) == (0, "")
    stages = read_manifest(tmp_path / "run")["stages"]
    assert stages["domains"]["converged"] in (True, False)
    assert ("scale" in stages["train"]["history"][-1]) == (count > 1)
    domain = zarr.open_group(tmp_path / "run" / "integrated.zarr", mode="r")["obs/stscale_domain"]
    codes = np.asarray(domain["codes"])
    assert len(codes) == 220 * count
    assert (codes < 0).sum() == sum(stages["features"]["left_out"].values()) > 0
    assert set(codes) == {-1, 0, 1, 2}
    assert stages["embed"]["seconds"] > 0


def test_log_normalised_slices_are_refused_in_one_line(
    slices: list[Path], tmp_path: Path, stscale_: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, said = stscale_("integrate", slices[0], "-o", tmp_path / "run", "--method", "mhal", "--lognormalized")
    assert code == 2
    assert "mhal.without = ['zinb']" in said
    assert not (tmp_path / "run").exists()
