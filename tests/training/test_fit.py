"""The training loop: resuming bit by bit, checkpoints, prefetching, errors."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stscale.config import Sample, Train
from stscale.config import Spotscape as Config
from stscale.errors import StscaleError
from stscale.graphs.build import knn_graph
from stscale.graphs.csr import block_diagonal
from stscale.models import Method, Spotscape
from stscale.sampling import make_sampler
from stscale.training import DenseInputs, Task, checkpoint, fit, total_steps
from stscale.training.prefetch import prefetched

OFFSETS = np.array([0, 50, 130, 170])
N, G = 170, 8
# prototypes from step 4 on with a k-means every 7 steps, a bank, Grams of all spots
CONFIG = Config(hidden=12, latent=4, scale_k=3, bank=60, scope="global", warmup=0.1, refresh=7)
TRAIN = Train(steps=40, lr=1e-2, average=0.7, checkpoint_every=10, log_every=3)


class StoppedError(Exception):
    """The power cut."""


def network(seed: int = 0) -> Method:
    torch.manual_seed(seed)
    return Spotscape(G, 3, 3, CONFIG, 0)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    rng = np.random.default_rng(0)
    graph = block_diagonal([knn_graph(rng.random((n, 2)), 4) for n in np.diff(OFFSETS)])
    inputs = DenseInputs(tmp_path / "x.f32", N, G)
    inputs.array[:] = rng.normal(size=(N, G))
    return Task(
        sampler=make_sampler(graph, OFFSETS, Sample(batch_size=48, tile=8), hops=2, seed=1),
        inputs=inputs,
        targets=None,
        library=None,
        group=np.repeat(np.arange(3, dtype=np.int32), np.diff(OFFSETS)),
        mask=rng.random((3, G)) < 0.8,
        seed=5,
        device=torch.device("cpu"),
        digest="mine",
    )


def run(method: Method, task: Task, folder: Path, train: Train = TRAIN) -> list[dict[str, float]]:
    return fit(method, task, train, folder, lambda _: None)


def assert_same(a: Method, b: Method) -> None:
    one, two = a.state_dict(), b.state_dict()
    assert one.keys() == two.keys()
    assert [k for k in one if not torch.equal(one[k], two[k])] == []


def stop_at(step: int) -> Any:
    def report(entry: dict[str, Any]) -> None:
        if entry["step"] >= step:
            raise StoppedError

    return report


@pytest.mark.parametrize("stop", [3, 21, 33])
def test_a_stopped_training_ends_with_the_same_bits(task: Task, tmp_path: Path, stop: int) -> None:
    whole = network()
    history = run(whole, task, tmp_path / "whole")
    first = network()
    with pytest.raises(StoppedError):
        fit(first, task, TRAIN, tmp_path / "cut", stop_at(stop))
    newest = checkpoint.latest(tmp_path / "cut")
    done = (stop - 1) // 10 * 10
    assert (newest and newest.name) == (f"step-{done:07d}.pt" if done else None)
    # a new process: another network (other weights unless it starts anew), another optimiser
    second = network(99 if done else 0)
    resumed = run(second, task, tmp_path / "cut")
    assert_same(second, whole)
    assert resumed == history
    assert [e["step"] for e in history] == [*range(3, 40, 3), 40]
    assert "prototypes" in history[-1]
    assert "prototypes" not in history[0]
    assert int(whole.get_buffer("centroids_step")) > 4
    assert int(whole.get_buffer("bank.written")) > 60
    assert whole.get_buffer("running_g").abs().sum() > 0


def test_a_finished_training_is_not_repeated(task: Task, tmp_path: Path) -> None:
    whole, again = network(), network(99)
    history = run(whole, task, tmp_path / "c")
    reports: list[Any] = []
    assert fit(again, task, TRAIN, tmp_path / "c", reports.append) == history
    assert reports == []
    assert_same(again, whole)


def test_training_lowers_the_reconstruction_and_the_seed_matters(task: Task, tmp_path: Path) -> None:
    task.inputs.array[:] += 2  # type: ignore[attr-defined]
    history = run(network(), task, tmp_path / "a", replace(TRAIN, steps=60))
    assert history[-1]["reconstruction"] < 0.9 * history[0]["reconstruction"]
    other = run(network(), replace(task, seed=6), tmp_path / "b", replace(TRAIN, steps=3))
    assert other[0]["reconstruction"] != history[0]["reconstruction"]
    weights = network().weights
    for entry in (history[0], history[-1]):
        assert entry["loss"] == pytest.approx(sum(w * entry.get(k, 0.0) for k, w in weights.items()), rel=1e-5)


def test_the_result_is_the_mean_of_the_last_weights(task: Task, tmp_path: Path) -> None:
    # 8 steps, the last half averaged: the mean of the weights after steps 5, 6, 7 and 8
    train = replace(TRAIN, steps=8, average=0.0, checkpoint_every=1, log_every=1)
    seen: list[torch.Tensor] = []
    plain, averaged = network(), network()
    weight = plain.convolutions[0].linear.weight
    fit(plain, task, train, tmp_path / "plain", lambda _: seen.append(weight.detach().clone()))
    run(averaged, task, tmp_path / "averaged", replace(train, average=0.5))
    assert len(seen) == 8
    torch.testing.assert_close(averaged.convolutions[0].linear.weight.detach(), torch.stack(seen[4:]).mean(0))
    assert torch.equal(weight, seen[-1])


@pytest.mark.parametrize("ahead", [1, 2])
def test_prefetching_changes_nothing(task: Task, tmp_path: Path, ahead: int) -> None:
    methods = network(), network()
    train = replace(TRAIN, steps=12)
    histories = [
        run(m, task, tmp_path / str(a), replace(train, prefetch=a)) for m, a in zip(methods, (0, ahead), strict=True)
    ]
    assert histories[0] == histories[1]
    assert_same(*methods)


class Broken:
    """Inputs whose file fails after some reads."""

    n, width = N, G

    def __init__(self, inputs: Any) -> None:
        self.inputs, self.reads = inputs, 0

    def rows(self, ids: np.ndarray) -> np.ndarray:
        self.reads += 1
        if self.reads > 5:
            raise OSError("the disk is gone")
        return self.inputs.rows(ids)


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_error_while_preparing_a_batch_surfaces(task: Task, tmp_path: Path, ahead: int) -> None:
    seen: list[Any] = []
    train = replace(TRAIN, prefetch=ahead, log_every=1)
    with pytest.raises(OSError, match="the disk is gone"):
        fit(network(), replace(task, inputs=Broken(task.inputs)), train, tmp_path / "c", seen.append)
    assert [e["step"] for e in seen] == [1, 2, 3, 4, 5]
    assert not [t for t in threading.enumerate() if t.name == "stscale-prefetch"]


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_prefetched_keeps_the_order_and_stops_early(ahead: int) -> None:
    made: list[int] = []

    def make(step: int) -> int:
        made.append(step)
        return step * step

    assert list(prefetched(make, range(3, 9), ahead)) == [9, 16, 25, 36, 49, 64]
    made.clear()
    items = prefetched(make, range(1000), ahead)
    assert [next(items), next(items)] == [0, 1]
    items.close()  # type: ignore[attr-defined]
    assert len(made) <= 2 + ahead + 1
    assert not [t for t in threading.enumerate() if t.name == "stscale-prefetch"]


def test_a_loss_that_is_not_finite_names_step_and_terms(task: Task, tmp_path: Path) -> None:
    task.inputs.array[:] = np.nan  # type: ignore[attr-defined]
    off = replace(CONFIG, w_scale=0.0, w_prototypes=0.0)
    with pytest.raises(StscaleError, match=r"not finite at step 1 \(.*reconstruction nan.*telescope nan.*train\.lr"):
        run(Spotscape(G, 3, 3, off, 0), task, tmp_path / "c")
    assert checkpoint.latest(tmp_path / "c") is None


def test_not_finite_input_is_an_error_of_ours_with_all_terms(task: Task, tmp_path: Path) -> None:
    task.inputs.array[:] = np.nan  # type: ignore[attr-defined]
    with pytest.raises(StscaleError):
        run(network(), task, tmp_path / "c")


def test_checkpoints_of_another_run_are_refused(task: Task, tmp_path: Path) -> None:
    train = replace(TRAIN, steps=10)
    run(network(), task, tmp_path / "c", train)
    with pytest.raises(StscaleError, match="another configuration"):
        run(network(), replace(task, digest="other"), tmp_path / "c", train)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_damaged_checkpoints_are_refused(task: Task, tmp_path: Path, damage: str) -> None:
    run(network(), task, tmp_path / "c", replace(TRAIN, steps=10))
    path = tmp_path / "c" / "step-0000010.pt"
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"no checkpoint"}[damage])
    with pytest.raises(StscaleError, match=r"step-0000010\.pt is not a readable checkpoint"):
        run(network(), task, tmp_path / "c")


def test_checkpoints_of_another_version_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint.save(tmp_path, 3, {"a": torch.ones(2)}, "mine")
    step, state = checkpoint.load(path, "mine", torch.device("cpu"))
    assert (step, state["a"].tolist()) == (3, [1.0, 1.0])
    monkeypatch.setattr(checkpoint, "__version__", "99.0")
    with pytest.raises(StscaleError, match=r"this is 99\.0"):
        checkpoint.load(path, "mine", torch.device("cpu"))


def test_only_the_two_newest_checkpoints_are_kept(task: Task, tmp_path: Path) -> None:
    run(network(), task, tmp_path / "c", replace(TRAIN, steps=25, checkpoint_every=4))
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["step-0000024.pt", "step-0000025.pt"]


def test_claiming_a_folder_removes_the_checkpoints_of_others(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    assert checkpoint.latest(folder) is None
    checkpoint.claim(folder, "mine")
    mine = checkpoint.save(folder, 3, {}, "mine")
    checkpoint.claim(folder, "mine")
    assert checkpoint.latest(folder) == mine
    checkpoint.claim(folder, "other")
    assert checkpoint.latest(folder) is None
    checkpoint.save(folder, 4, {}, "other")
    checkpoint.claim(folder, "other")
    assert [p.name for p in folder.glob("*.pt")] == ["step-0000004.pt"]
    # checkpoints of nobody are not ours either
    (folder / "digest").unlink()
    checkpoint.claim(folder, "other")
    assert checkpoint.latest(folder) is None


def test_epochs_replace_steps() -> None:
    assert total_steps(Train(steps=7), 9) == 7
    assert total_steps(Train(steps=7, epochs=3), 9) == 27


def test_a_torch_file_of_something_else_is_refused(task: Task, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    torch.save([1, 2], tmp_path / "c" / "step-0000010.pt")
    with pytest.raises(StscaleError, match="not a checkpoint of stscale"):
        run(network(), task, tmp_path / "c")
