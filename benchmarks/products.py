"""A batch's sparse adjacency times dense features, in every form this environment has."""

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.child import call
from benchmarks.data import say

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from torch import Tensor

    from stscale.models.edges import Edges

    Form = Callable[[Tensor], Tensor]

WIDTHS = (50, 64, 256, 512)
REPEATS = 30
TITLES = {
    "embedding_bag": "torch embedding_bag, own backward (what stscale uses)",
    "torch_csr": "torch sparse CSR (int32), torch's own backward",
    "torch_csr_kept": "torch sparse CSR (int32), transpose kept for the backward",
    "scipy": "scipy CSR, transpose kept for the backward",
    "pyg_spmm": "torch_geometric.utils.spmm",
    "index_add": "gather and index_add (message passing)",
}


def products(threads: int, *, smoke: bool) -> dict[str, Any]:
    """Time every form in a child."""
    shape = {"n": 2_000, "widths": [8], "repeats": 3} if smoke else {"n": 100_000, "widths": WIDTHS, "repeats": REPEATS}
    found = call("benchmarks.products:measure", {**shape, "threads": threads}, threads=threads).value
    for row in found["forms"]:
        if "skipped" not in row:
            both = row["both_ms"]
            said = "" if both is None else f", with backward {both:.2f} ms"
            say(f"d {row['d']} {row['form']}: {row['forward_ms']:.2f} ms{said}")
    return found


def measure(n: int, widths: list[int], repeats: int, threads: int) -> dict[str, Any]:
    """Time every form on the first layer of a real batch of the tile sampler; runs in the child.

    Returns
    -------
    dict
        rows, cols and entries of the adjacency; for every width and form forward_ms, both_ms (forward and
        backward; None where it is not differentiable) and the largest absolute difference to scipy.
    """
    import torch

    from benchmarks.points import points
    from stscale.config import Sample
    from stscale.models.edges import layer_edges
    from stscale.sampling import make_sampler
    from stscale.threads import set_threads

    set_threads(threads)
    tissue = points(n, 10, np.random.default_rng(0))
    sampler = make_sampler(tissue.graph, tissue.offsets, Sample(), hops=2, seed=0)
    ((edges,), _) = layer_edges(sampler.batch(0), torch.device("cpu"))
    shape = {"rows": len(edges.pattern.indptr) - 1, "cols": edges.pattern.cols, "entries": len(edges.weight)}
    generator = torch.Generator().manual_seed(0)
    rows = []
    for d in widths:
        h = torch.randn(shape["cols"], d, generator=generator)
        rows += _width(edges, h, repeats)
    return {**shape, "repeats": repeats, "titles": TITLES, "forms": rows}


def _width(edges: "Edges", h: "Tensor", repeats: int) -> list[dict[str, Any]]:
    made = forms(edges)
    reference = made["scipy"](h)
    grad = reference.flip(0).contiguous()  # any gradient of that shape that is not constant
    rows: list[dict[str, Any]] = []
    for name in TITLES:
        entry: dict[str, Any] = {"d": h.shape[1], "form": name}
        if name not in made:
            rows.append({**entry, "skipped": "torch_geometric is not installed"})
            continue
        form = made[name]
        entry["forward_ms"] = _median_ms(lambda form=form: form(h), repeats)
        try:
            entry["both_ms"] = _median_ms(lambda form=form: _backward(form, h, grad), repeats)
        except RuntimeError as error:
            entry |= {"both_ms": None, "not_differentiable": str(error).splitlines()[0]}
        entry["difference"] = float((form(h) - reference).abs().max())
        rows.append(entry)
    return rows


def forms(edges: "Edges") -> "dict[str, Form]":
    """Return h → Â h in every form, with the conversions each needs once per batch left out of its time.

    The transpose that a backward pass needs is one of them, where the form lets it be kept.
    """
    import torch
    from scipy.sparse import csr_matrix

    pattern, weight = edges.pattern, edges.weight
    shape = (len(pattern.indptr) - 1, pattern.cols)
    forward = csr_matrix((weight.numpy(), pattern.indices.numpy(), pattern.indptr.numpy()), shape=shape)
    back = forward.T.tocsr()
    sparse, sparse_back = (_torch_csr(m) for m in (forward, back))
    row = torch.repeat_interleave(torch.arange(shape[0]), pattern.indptr.diff())
    _ = pattern.transposed

    def index_add(h: "Tensor") -> "Tensor":
        return h.new_zeros(shape[0], h.shape[1]).index_add(0, row, h[pattern.indices] * weight[:, None])

    made: dict[str, Form] = {
        "embedding_bag": lambda h: edges @ h,
        "torch_csr": lambda h: sparse @ h,
        "torch_csr_kept": _pair(lambda h: sparse @ h, lambda grad: sparse_back @ grad),
        "scipy": _pair(
            lambda h: torch.from_numpy(forward @ h.numpy()), lambda grad: torch.from_numpy(back @ grad.numpy())
        ),
        "index_add": index_add,
    }
    if importlib.util.find_spec("torch_geometric") is not None:
        from torch_geometric.utils import spmm

        made["pyg_spmm"] = lambda h: spmm(sparse, h, reduce="sum")
    return made


def _torch_csr(matrix: "csr_matrix") -> "Tensor":
    import torch

    matrix = matrix.sorted_indices()
    parts = (matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32), matrix.data)
    return torch.sparse_csr_tensor(*map(torch.from_numpy, parts), size=matrix.shape, check_invariants=True)


def _pair(forward: "Form", back: "Form") -> "Form":
    """Make a differentiable product of a product and the one with the transpose."""
    import torch

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, h: "Tensor") -> "Tensor":
            return forward(h.detach())

        @staticmethod
        def backward(ctx: Any, *grads: "Tensor") -> "Tensor":
            return back(grads[0])

    return Product.apply


def _backward(form: "Form", h: "Tensor", grad: "Tensor") -> None:
    form(h.detach().requires_grad_()).backward(grad)


def _median_ms(work: Callable[[], object], repeats: int) -> float:
    for _ in range(3):
        work()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(taken)
