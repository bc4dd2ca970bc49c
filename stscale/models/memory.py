"""A ring of recent latents that survives checkpoints."""

import torch
from torch import Tensor, nn


class LatentRing(nn.Module):
    """Keep the last `size` latents and their slices.

    Parameters
    ----------
    size
        Latents kept; 0 keeps none.
    d
        Latent width.
    """

    latent: Tensor
    group: Tensor
    written: Tensor

    def __init__(self, size: int, d: int) -> None:
        super().__init__()
        self.register_buffer("latent", torch.zeros(size, d))
        self.register_buffer("group", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return min(int(self.written), len(self.latent))

    @torch.no_grad()
    def push(self, z: Tensor, group: Tensor) -> None:
        """Add latents (b, d) with slices (b,), over the oldest ones."""
        size = len(self.latent)
        if size == 0:
            return
        z, group = z[-size:], group[-size:]
        at = (int(self.written) + torch.arange(len(z), device=z.device)) % size
        self.latent[at] = z.detach().to(self.latent.dtype)
        self.group[at] = group
        self.written += len(z)

    def filled(self) -> tuple[Tensor, Tensor]:
        """Return the latents (m, d) and slices (m,) held so far."""
        return self.latent[: len(self)], self.group[: len(self)]
