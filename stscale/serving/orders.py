"""From a submission to the words of a command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stscale.config import Run, check_own, load, over, parse
from stscale.errors import InputError
from stscale.rundir import check_place, read_manifest
from stscale.serving.places import Places
from stscale.serving.schemas import Submission

WHERE = "config"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A submission whose paths are real and whose options are known.

    Attributes
    ----------
    submission
        As it came.
    slices
        Real paths, patterns replaced by what they match.
    run
        Finished run that it works on, if any.
    out
        Folder that it writes to.
    config
        All options.
    toml
        What was given of them.
    """

    submission: Submission
    slices: tuple[Path, ...]
    run: Path | None
    out: Path
    config: Run
    toml: str

    @classmethod
    def read(cls, submission: Submission, places: Places, name: str) -> "Order":
        """Check a submission by what is light: names, kinds and bounds of options, and where paths lead.

        Parameters
        ----------
        submission
            As it came.
        places
            Where paths may lead.
        name
            Folder of a job that names none.

        Raises
        ------
        InputError
            In one line, the command line's own where that would meet it.
        """
        given = submission.config
        values: dict[str, Any] = parse(given, WHERE) if isinstance(given, str) else dict(given)
        run = places.run(submission.run) if submission.run else None
        base = None
        if submission.command == "align" and run is not None:
            read_manifest(run)
            base = load(run / "config.toml")
        config = over(values, WHERE, base)
        pairs = values.get("align", {}).get("pairs") if isinstance(values.get("align"), dict) else None
        if pairs is not None:
            values["align"] = {**values["align"], "pairs": places.pairs(pairs)}
            config = over(values, WHERE, base)
        _check(submission, config, base, values)
        if submission.command != "align" or run is None:
            if not submission.slices:
                raise InputError("no slices given: name at least one .zarr, .h5ad or 10x Visium folder")
            out = places.out(submission.out or name)
            if submission.command != "map":  # which has a folder of another kind
                check_place(out)
        else:
            out = run
        slices = tuple(path for given in submission.slices for path in places.inputs(given))
        return cls(submission=submission, slices=slices, run=run, out=out, config=config, toml=_toml(values))

    def words(self, config: Path, threads: int) -> list[str]:
        """Return the words of the command.

        Parameters
        ----------
        config
            Where `toml` will be.
        threads
            CPU threads where the options ask for none.
        """
        s, c = self.submission, self.config
        words = [s.command, *([str(self.run)] if self.run else []), *map(str, self.slices)]
        words += [] if s.command == "align" and self.run else ["--out", str(self.out)]
        words += ["--threads", str(c.threads or threads), "--progress", "json"]
        if s.command == "map":
            words += [f"--split={c.ingest.split}"] if c.ingest.split is not None else []
            return [*words, "--seed", str(c.seed), *(["--restat"] if s.restat else [])]
        words += ["--config", str(config)]
        # in one word: what a client names is never an option of its own
        words += [f"--transfer-labels={column}" for column in s.transfer_labels]
        return [*words, *([f"--transfer-genes={','.join(s.transfer_genes)}"] if s.transfer_genes else [])]

    @property
    def reads(self) -> list[str]:
        """Real paths that the command reads."""
        return [str(path) for path in (*self.slices, *([self.run] if self.run else []))]


def _check(submission: Submission, config: Run, base: Run | None, values: dict[str, Any]) -> None:
    """Refuse options that contradict each other, or that are not a client's to choose."""
    if config.scheduler != (base or Run()).scheduler:
        raise InputError("run.scheduler: where a job computes is the service's to say; leave the option out")
    if base is not None:
        check_own(config, base)
    if submission.command == "map":
        heeded = {"run": {"seed", "threads"}, "ingest": {"split"}}
        others = [k for k in values if k not in heeded]
        others += [k for table, own in heeded.items() for k in values.get(table, {}) if k not in own]
        if others:
            raise InputError(
                f"map takes all options but run.seed, run.threads and ingest.split from its run; leave out {others[0]}"
            )
    config.check_sections()


def _toml(values: dict[str, Any]) -> str:
    import tomlkit

    return tomlkit.dumps(values)
