"""Which paths a client may name."""

from collections.abc import Sequence
from pathlib import Path

from stscale.errors import InputError
from stscale.inputs import matched

KINDS = (".toml", ".csv")
"""Ends of a list of pairs."""


class Places:
    """Folders that a service reads from and writes to; what leads out of them is refused, links followed.

    Parameters
    ----------
    slices
        Folders of slices.
    runs
        Folder of run folders.
    """

    def __init__(self, slices: Sequence[Path], runs: Path) -> None:
        self.slices = [path.resolve(strict=True) for path in slices]
        self.runs = runs.resolve(strict=True)

    def inputs(self, given: str) -> list[Path]:
        """Return the real paths of a slice, or of what a pattern matches.

        Parameters
        ----------
        given
            Inside one of the folders of slices or the folder of runs; relative to the first that has it.

        Raises
        ------
        InputError
            When nothing is there, or it lies elsewhere.
        """
        roots, plain = [*self.slices, self.runs], _plain(given)
        for root in roots:
            try:
                found = matched([root / plain])
            except InputError:
                continue
            if all(path.exists() for path in found):
                return [_inside(path, roots, given) for path in found]
        raise InputError(f"{given} does not exist in the folders of this service: {_listed(roots)}")

    def pairs(self, given: str) -> str:
        """Return the rule of an alignment's pairs, or the real path of a list of them."""
        return str(self.inputs(given)[0]) if Path(_plain(given)).suffix in KINDS else given

    def run(self, given: str) -> Path:
        """Return the real path of a finished run.

        Raises
        ------
        InputError
            When it is not there, or not in the folder of runs.
        """
        path = self.runs / _plain(given)
        if not path.is_dir():
            raise InputError(f"{given} is no folder in the folder of runs, {self.runs}")
        return self._below(path, given)

    def out(self, given: str) -> Path:
        """Return the real path of a run folder to be, below the folder of runs.

        Raises
        ------
        InputError
            When it would lie elsewhere, or has a hidden part.
        """
        return self._below(self.runs / _plain(given), given)

    def unchanged(self, paths: Sequence[Path]) -> None:
        """Make sure that real paths are still real: none of their parts has become a link since.

        Raises
        ------
        InputError
            Naming the one that has.
        """
        for path in paths:
            if path.resolve() != path:
                raise InputError(f"{path} now leads to {path.resolve()}; submit the job again")

    def _below(self, path: Path, given: str) -> Path:
        real = _inside(path, [self.runs], given)
        if real == self.runs:
            raise InputError(f"{given!r} is the folder of all runs; name a folder in it")
        return real


def _plain(given: str) -> str:
    if not given or "\0" in given:
        raise InputError(f"{given!r} is no path")
    return given


def _inside(path: Path, roots: Sequence[Path], given: str) -> Path:
    try:
        real = path.resolve()
    except (OSError, RuntimeError) as error:
        raise InputError(f"{given} cannot be followed: {error}") from error
    root = next((root for root in roots if real.is_relative_to(root)), None)
    if root is None:
        raise InputError(f"{given} lies outside the folders of this service: {_listed(roots)}")
    if any(part.startswith(".") for part in real.relative_to(root).parts):
        raise InputError(f"{given}: hidden folders and files are not used here; name another one")
    return real


def _listed(roots: Sequence[Path]) -> str:
    return ", ".join(map(str, dict.fromkeys(roots)))
