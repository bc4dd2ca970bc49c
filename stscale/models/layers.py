"""Pieces of the networks: normalisation, graph convolution, decoder, feature drop."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from stscale import ranks
from stscale.models.edges import Edges


class Measured(nn.Module):
    """A layer with statistics over spots: running ones of minibatches, measured exactly afterwards.

    Within `measuring()` a forward adds its rows to float64 sums (`collect`); on leaving, the statistics of all those
    rows replace the running ones (`settle`). The result does not depend on the chunks. Sums are taken around the
    running mean: plain sums of squares would cancel for large means.
    """

    _sums: Tensor | None = None

    @property
    def centre(self) -> Tensor:
        """The running mean, (d,)."""
        return self.get_buffer("running_mean")

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Collect statistics in the enclosed forwards."""
        self._sums = torch.zeros(2, len(self.centre), dtype=torch.float64)
        self._rows = 0
        self._shift = self.centre.double().cpu().clone()
        try:
            yield
            if self._rows:
                mean, square = self._sums / self._rows
                variance = (square - mean**2) * self._rows / max(1, self._rows - 1)
                self.settle(mean + self._shift, variance.clamp(min=0))
        finally:
            self._sums = None

    @property
    def collecting(self) -> bool:
        """Whether this is within `measuring()`."""
        return self._sums is not None

    def collect(self, rows: Tensor) -> None:
        """Add rows (m, d) to the sums."""
        if self._sums is None:
            raise RuntimeError("there are sums within measuring() only")
        shifted = rows.detach().double().cpu() - self._shift
        self._sums[0] += shifted.sum(dim=0)
        self._sums[1] += (shifted**2).sum(dim=0)
        self._rows += len(shifted)

    def settle(self, mean: Tensor, variance: Tensor) -> None:
        """Take mean and unbiased variance (d,) of all rows as the running ones."""
        self.centre.copy_(mean.float())

    def take(self) -> tuple[Tensor, int]:
        """Hand over the sums (2, d) float64 and the rows collected so far, and start collecting anew."""
        sums, rows = self._sums, self._rows
        if sums is None:
            raise RuntimeError("there are sums within measuring() only")
        self._sums, self._rows = torch.zeros_like(sums), 0
        return sums, rows

    def add(self, sums: Tensor, rows: int) -> None:
        """Add what a copy of this module with the same running mean took, within `measuring()`."""
        held, held_rows = self.take()
        self._sums, self._rows = held + sums, held_rows + rows


class MeasuredMean(Measured):
    """The mean over spots of what a network says of each: of the batch's seeds in training, of all spots afterwards.

    Parameters
    ----------
    start
        Running mean before the first batch.
    momentum
        Weight of a new batch in the running mean.
    """

    def __init__(self, start: float, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("running_mean", torch.tensor([start]))

    def forward(self, values: Tensor) -> Tensor:
        """Return the mean, a scalar: of the seeds of all ranks in training, else the running one.

        Parameters
        ----------
        values
            (m,) of the rows that count.
        """
        if self.collecting:
            self.collect(values[:, None])
        elif self.training:
            mean = ranks.mean(values.mean(), len(values))
            self.centre.lerp_(mean.detach().to(self.centre), self.momentum)
            return mean
        return self.centre[0].to(values.dtype)


class MeasuredNorm(Measured, nn.BatchNorm1d):
    """BatchNorm over the seeds of a batch, whose running statistics can be measured exactly afterwards.

    In training, mean and variance are those of the seeds alone: a spot counts once an epoch, however many halos it
    lies in, and the seeds of several ranks combine to the statistics of their union. Each view has its own.
    Within `measuring()` rows are returned unnormalised.
    """

    def settle(self, mean: Tensor, variance: Tensor) -> None:
        """Take mean and unbiased variance (d,) of all rows as the running ones."""
        super().settle(mean, variance)
        self.get_buffer("running_var").copy_(variance.float())

    def forward(self, input: Tensor, views: int = 1, seeds: int | None = None) -> Tensor:
        """Normalise (views · rows, d), or collect.

        Parameters
        ----------
        input
            Rows of the first view, then of the second, …
        views
            Number of views.
        seeds
            Rows of each view that count, its first ones; None: all.
        """
        if self.collecting:
            self.collect(input)
            return input
        if self.training:
            h = input.view(views, -1, input.shape[1])
            out, mean, var = _Normalised.apply(h, self.weight, self.bias, seeds or h.shape[1], self.eps)  # type: ignore[no-untyped-call]
            with torch.no_grad():
                for v in range(views):
                    self.get_buffer("running_mean").lerp_(mean[v], self.momentum or 0.0)
                    self.get_buffer("running_var").lerp_(var[v], self.momentum or 0.0)
            normalised: Tensor = out.view_as(input)
            return normalised
        return nn.BatchNorm1d.forward(self, input)


class _Normalised(torch.autograd.Function):
    """(h − μ) / √(σ² + ε) · w + b per view, with μ, σ² of the first `seeds` rows over all ranks."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, weight: Tensor, bias: Tensor, seeds: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        # two sums: torch.var_mean over a middle dimension is slow on a CPU
        own = _wide(h[:, :seeds])
        mean = own.mean(dim=1)  # (v, d)
        var = (own - mean[:, None]).square_().mean(dim=1)
        n = float(seeds)
        if ranks.count() > 1:
            n = float(ranks.total(torch.tensor(n, dtype=torch.float64, device=h.device)))
            centre = ranks.total(mean * (seeds / n))
            var, mean = ranks.total((var + (mean - centre) ** 2) * (seeds / n)), centre
        inverse = torch.rsqrt(var + eps)
        scale = inverse * weight
        out = torch.addcmul((bias - mean * scale)[:, None], _wide(h), scale[:, None]).to(h.dtype)
        ctx.save_for_backward(h, mean, inverse, weight)
        ctx.seeds, ctx.n = seeds, n
        unbiased = var * (n / max(n - 1, 1))
        ctx.mark_non_differentiable(mean, unbiased)
        return out, mean, unbiased

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        h, mean, inverse, weight = ctx.saved_tensors
        g = _wide(grads[0])
        x_hat = (_wide(h) - mean[:, None]) * inverse[:, None]
        pull, pull_x = g.sum(dim=1), (g * x_hat).sum(dim=1)  # (v, d)
        grad_weight, grad_bias = pull_x.sum(dim=0), pull.sum(dim=0)
        pull, pull_x = ranks.total(pull), ranks.total(pull_x)
        scale = inverse * weight
        grad = g * scale[:, None]
        # only the seeds moved mean and variance
        back = torch.addcmul((pull * scale / ctx.n)[:, None], x_hat[:, : ctx.seeds], (pull_x * scale / ctx.n)[:, None])
        grad[:, : ctx.seeds] -= back
        return grad.to(h.dtype), grad_weight, grad_bias, None, None


def _wide(h: Tensor) -> Tensor:
    """Half precision → float32; sums of many rows need it."""
    return h if h.dtype in (torch.float32, torch.float64) else h.float()


class ConvBlock(nn.Module):
    """Graph convolution, normalisation, activation: h → act(norm(Â h W + bias)).

    Parameters
    ----------
    d_in, d_out
        Widths.
    normalize
        Whether BatchNorm follows.
    activate
        Whether ReLU follows.
    momentum
        BatchNorm momentum.
    """

    def __init__(self, d_in: int, d_out: int, *, normalize: bool, activate: bool, momentum: float) -> None:
        super().__init__()
        self.linear = nn.Linear(d_in, d_out)
        self.norm = MeasuredNorm(d_out, momentum=momentum) if normalize else None
        self.activate = activate

    def forward(self, h: Tensor, edges: Edges) -> Tensor:
        """Map features (cols, d_in) of the source nodes to (rows, d_out) of the targets."""
        # Â(hW) = (Âh)W: the sparse product runs on the narrower side
        weight = self.linear.weight
        out = self.linear(edges @ h) if h.shape[1] <= len(weight) else edges @ (h @ weight.T) + self.linear.bias
        if self.norm is not None:
            out = self.norm(out, edges.views, edges.seeds)
        return out.relu() if self.activate else out


class Decoder(nn.Module):
    """MLP d → hidden → g with BatchNorm and ReLU between."""

    def __init__(self, d: int, hidden: int, g: int, *, momentum: float) -> None:
        super().__init__()
        self.inner = nn.Linear(d, hidden)
        self.norm = MeasuredNorm(hidden, momentum=momentum)
        self.outer = nn.Linear(hidden, g)

    def forward(self, z: Tensor, views: int = 1) -> Tensor:
        """Map latents (views · b, d) to reconstructions (views · b, g)."""
        return self.outer(self.norm(self.inner(z), views).relu())


def drop_features(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Set a random share of the columns to zero, the same columns for all rows."""
    if share == 0:
        return x
    keep = torch.rand(x.shape[1], generator=generator, device=x.device) >= share
    return x * keep
