"""Pieces of the networks: normalisation, graph convolution, decoder, feature drop."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stscale.models.edges import Edges


class MeasuredNorm(nn.BatchNorm1d):
    """BatchNorm whose running statistics can be measured exactly, over rows seen chunk by chunk.

    Within `measuring()` a forward adds the rows to float64 sums and returns them unnormalised; on leaving, mean
    and variance of all those rows replace the running ones. The result does not depend on the chunks.
    """

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Collect statistics in the enclosed forwards."""
        self._sums: Tensor | None = torch.zeros(2, self.num_features, dtype=torch.float64)
        self._rows = 0
        # sums are taken around the running mean: plain sums of squares would cancel for large means
        self._shift = self.get_buffer("running_mean").double().cpu().clone()
        try:
            yield
            if self._rows:
                mean, square = self._sums / self._rows
                variance = (square - mean**2) * self._rows / max(1, self._rows - 1)
                self.get_buffer("running_mean").copy_((mean + self._shift).float())
                self.get_buffer("running_var").copy_(variance.clamp(min=0).float())
        finally:
            self._sums = None

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

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (rows, d), or collect."""
        sums = getattr(self, "_sums", None)
        if sums is None:
            return super().forward(input)
        rows = input.detach().double().cpu() - self._shift
        sums[0] += rows.sum(dim=0)
        sums[1] += (rows**2).sum(dim=0)
        self._rows += len(rows)
        return input


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
        out = (edges @ h) @ weight.T if h.shape[1] <= len(weight) else edges @ (h @ weight.T)
        out = out + self.linear.bias
        if self.norm is not None:
            out = self.norm(out)
        return out.relu() if self.activate else out


class Decoder(nn.Module):
    """MLP d → hidden → g with BatchNorm and ReLU between."""

    def __init__(self, d: int, hidden: int, g: int, *, momentum: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(d, hidden), nn.BatchNorm1d(hidden, momentum=momentum), nn.ReLU(), nn.Linear(hidden, g)
        )

    def forward(self, z: Tensor) -> Tensor:
        """Map latents (b, d) to reconstructions (b, g)."""
        return self.layers(z)


def drop_features(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Set a random share of the columns to zero, the same columns for all rows."""
    if share == 0:
        return x
    keep = torch.rand(x.shape[1], generator=generator, device=x.device) >= share
    return x * keep
