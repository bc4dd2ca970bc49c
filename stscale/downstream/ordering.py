"""obs stscale_pseudotime, trajectory.csv and its figure: the spots of a run in order from a root domain."""

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stscale.atomic import atomic_path
from stscale.downstream.finished import Finished
from stscale.errors import InputError
from stscale.options import digest
from stscale.rundir import RunFolder
from stscale.slices import keys
from stscale.telling import Observer, Telling

if TYPE_CHECKING:
    from stscale.analysis.trajectory import Trajectory

FILE = "trajectory.csv"
FIGURE = "figures/trajectory.png"


class Ordering(Telling):
    """The trajectory of one finished run.

    Parameters
    ----------
    run
        The run.
    observer
        Called with each event.
    """

    def __init__(self, run: Finished, observer: Observer) -> None:
        super().__init__(RunFolder(run.path), observer)
        self.finished = run

    def go(self, root: str, *, seed: int) -> None:
        """Write the pseudotime from a domain, unless it is there already.

        Raises
        ------
        InputError
            If there is no such domain, or too few spots.
        """
        from stscale.analysis.trajectory import trajectory

        z, codes, names = self._read()
        if root not in names:
            raise InputError(f"there is no domain {root!r}; the run has {', '.join(names)}")
        store, outputs = self.run.file("integrated.zarr"), [self.run.file(FILE), self.run.file(FIGURE)]
        now = digest([self.run.manifest["stages"]["write"]["digest"], root, seed])
        if self.run.finished("trajectory", now, *outputs, store / "obs" / keys.PSEUDOTIME):
            self.skip("trajectory")
            return
        from stscale.output import add_obs

        self.observer({"event": "stage", "stage": "trajectory", "state": "start"})
        with self.run.stage("trajectory", now) as found:
            held = codes >= 0
            result = trajectory(z[held], codes[held], names.index(root), seed=seed)
            whole = np.full(len(codes), np.nan)
            whole[held] = result.pseudotime
            add_obs(store, {keys.PSEUDOTIME: whole})
            self._table(result, names)
            self._figure(result, codes[held], names)
            start = int(np.flatnonzero(held)[result.root])
            found.update(root=root, root_row=start, fitted=result.fitted, notes=list(result.notes))
        for note in result.notes:
            self.tell("note", text=note)

    def _read(self) -> tuple[NDArray[np.float32], NDArray[np.int64], list[str]]:
        """Read latents (n, d), domain codes (n,), −1 for a spot left out, and the domains' names."""
        import zarr
        from anndata.io import read_elem

        root = zarr.open_group(self.run.file("integrated.zarr"), mode="r", use_consolidated=False)
        domains: Any = read_elem(root[f"obs/{keys.DOMAIN}"])
        z: Any = root[f"obsm/{keys.EMBEDDING}"]
        return np.asarray(z[:]), np.asarray(domains.codes, np.int64), [str(name) for name in domains.categories]

    def _table(self, found: "Trajectory", names: list[str]) -> None:
        with atomic_path(self.run.file(FILE)) as part, part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["domain", "other", "connectivity"])
            for i, j in zip(*np.triu_indices(len(names), 1), strict=True):
                writer.writerow([names[i], names[j], f"{found.connectivity[i, j]:.6f}"])

    def _figure(self, found: "Trajectory", codes: NDArray[np.int64], names: list[str]) -> None:
        from stscale.report.trajectory import drawn_trajectory

        times = [found.pseudotime[codes == k] for k in range(len(names))]
        png = drawn_trajectory([t[np.isfinite(t)] for t in times], found.connectivity, names)
        with atomic_path(self.run.file(FIGURE)) as part:
            part.write_bytes(png)
