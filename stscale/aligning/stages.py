"""The stages of an alignment: pairs, one frame, what is written, what is carried over."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stscale import __version__
from stscale import config as options
from stscale.aligning.transfer import Transferring, carry_over
from stscale.atomic import atomic_path
from stscale.config import Run
from stscale.options import digest
from stscale.rundir import RunFolder
from stscale.telling import Observer, Telling

if TYPE_CHECKING:
    from stscale.alignment import Alignment, PairList, PairRecord, PairResult, RunSlices, SliceView
    from stscale.transport import Plan

LEAST_TRUST = 1e-3
"""Weight in the frame of a pair whose score is chance."""
FRAME = ("pairs", "reference", "z", "spacing")
"""Options of [align] that do not matter to a pair by itself."""


class Aligning(Telling):
    """The alignment of one finished run: reused, resumed by pair, or done."""

    def __init__(self, run: RunFolder, slices: "RunSlices", pairs: "PairList", config: Run, observer: Observer) -> None:
        super().__init__(run, observer)
        self.slices, self.pairs, self.config = slices, pairs, config
        self._views: dict[int, SliceView] = {}

    def go(self, *, labels: Sequence[str] = (), genes: Sequence[str] = ()) -> "Alignment":
        """Do what is not done yet."""
        found = self.align()
        if labels or genes:
            self.transfer(found, labels, genes)
        self.report()
        return found

    def forget(self) -> None:
        """Start over: nothing of an earlier alignment is reused."""
        from stscale.alignment.record import FOLDER

        self.run.manifest["stages"].pop("align", None)
        self.run.save()
        shutil.rmtree(self.run.file(FOLDER), ignore_errors=True)

    def align(self) -> "Alignment":
        """Lay slices on each other and all of them into one frame.

        Until everything is computed, an earlier alignment stays what it was.
        """
        from stscale.alignment import read_alignment
        from stscale.alignment.record import FILE, FOLDER
        from stscale.output import MatchTable

        stages, now = self.run.manifest["stages"], self._digest()
        known = read_alignment(self.run.path)
        if known is not None:
            plans = [self.run.file(FOLDER, pair.plan) for pair in known.pairs]
            if self.run.finished("align", now, self.run.file(FILE), self.run.file(MatchTable.name()), *plans):
                self.skip("align")
                return known
        before = {name: stages[name] for name in ("align", "transfer", "report") if name in stages}
        self.observer({"event": "stage", "stage": "align", "state": "start"})
        try:
            with self.run.stage("align", now) as found:
                solved = self._solve()
                before = {}  # from here on the old outputs are being replaced
                for name in ("transfer", "report"):
                    stages.pop(name, None)
                self.run.save()
                self._write(solved)
                found.update(pairs=len(solved.pairs), unit=solved.unit, notes=list(solved.notes))
        except BaseException:
            stages.update(before)
            self.run.save()
            raise
        for note in solved.notes:
            self.tell("note", text=note)
        return solved

    def _digest(self) -> str:
        told = {k: v for k, v in asdict(self.config.align).items() if k != "pairs"}
        listed = [self.pairs.names, self.pairs.pairs, self.pairs.reference, self.slices.um_per_unit]
        written = self.run.manifest["stages"]["write"]["digest"]
        return digest([__version__, written, told, listed, self.config.seed])

    def _solve(self) -> "Alignment":
        """Do every pair, then the frame."""
        from stscale.alignment import Alignment, heights, solve_stack

        c, slices, count = self.config.align, self.slices, len(self.pairs.names)
        records = [self._pair(number) for number in range(len(self.pairs.pairs))]
        self._views.clear()
        known = c.z is not None or c.spacing is not None
        z = heights(count, z=c.z, spacing=c.spacing) if known else None
        stack = solve_stack(
            self.pairs,
            [record.transform for record in records],
            [slices.box(i) for i in range(count)],
            weights=[max(record.score, LEAST_TRUST) for record in records],
        )
        found = Alignment(
            names=slices.names,
            reference=slices.names[self.pairs.reference],
            unit=slices.unit,
            um_per_unit=slices.um_per_unit,
            transforms=stack.transforms,
            z=z,
            pairs=tuple(records),
            gaps=stack.residuals,
            weights=stack.weights,
            notes=stack.notes,
        )
        notes = list(stack.notes)
        if slices.silent:
            some = ", ".join(slices.silent[:5]) + (", …" if len(slices.silent) > 5 else "")
            notes.append(
                f"{some} {'does' if len(slices.silent) == 1 else 'do'} not tell how many µm a unit is: lengths are in "
                "the unit of the reference; slices of different units need align.kind = 'similarity'"
            )
        notes += [f"slice {name!r} is not warped: its pair leads away from the reference" for name in found.unwarped()]
        return replace(found, notes=tuple(notes))

    def _pair(self, number: int) -> "PairRecord":
        """Reuse a pair or do it; saved as soon as it is done."""
        from stscale.alignment.record import FOLDER, PairRecord

        source, target = self.pairs.pairs[number]
        names = self.slices.names[source], self.slices.names[target]
        name = f"{names[0]}--{names[1]}.{self._pair_digest(source, target)}"
        told, plan = self.run.file(FOLDER, f"{name}.json"), self.run.file(FOLDER, f"{name}.plan.npz")
        state = "reused"
        if told.exists() and plan.exists():
            record = PairRecord.from_dict(json.loads(told.read_text(encoding="utf-8")))
        else:
            state = "done"
            record = self._aligned(source, target, plan)
            with atomic_path(told) as part:
                part.write_text(json.dumps(record.to_dict()) + "\n", encoding="utf-8")
        self.tell(
            "pair",
            number=number + 1,
            total=len(self.pairs.pairs),
            source=names[0],
            target=names[1],
            state=state,
            rotation_degrees=record.transform.rotation_degrees,
            credible=record.credible,
        )
        return record

    def _pair_digest(self, source: int, target: int) -> str:
        stages = self.run.manifest["stages"]
        own = {k: v for k, v in asdict(self.config.align).items() if k not in FRAME}
        factors = self.slices.um_per_unit[source], self.slices.um_per_unit[target]
        ends = self.slices.names[source], self.slices.names[target]
        return digest(
            [__version__, stages.get("embed", stages["write"])["digest"], own, ends, factors, self.config.seed]
        )

    def _aligned(self, source: int, target: int, path: Path) -> "PairRecord":
        from stscale.alignment import align_pair, refine
        from stscale.transport import Plan

        c = self.config.align
        a, b = self._view(source), self._view(target)
        self._views = {source: a, target: b}  # the next pair most often shares a slice
        found = align_pair(a, b, c, seed=self.config.seed)
        if not c.refine:
            matches = found.matches
            plan = Plan.from_pairs(matches.source, matches.target, matches.weight, shape=(a.n, b.n))
            plan.save(path)
            return _record(found, plan, path.name)
        refined = refine(
            found.lay(a.xy),
            b.xy,
            a.z,
            b.z,
            anchors=c.refine_anchors,
            k=c.refine_k,
            space=c.refine_space,
            latent=c.refine_latent,
            epsilon=c.refine_epsilon,
            tau=c.refine_tau,
            trusted=c.refine_trusted,
        )
        refined.plan.save(path)
        return replace(
            _record(found, refined.plan, path.name),
            refined=True,
            overlap=refined.overlap,
            plan_error=refined.error,
            anchor_value=refined.anchor_value,
            converged=not refined.notes,
            notes=found.notes + refined.notes,
        )

    def _view(self, i: int) -> "SliceView":
        return self._views[i] if i in self._views else self.slices.view(i)

    def _write(self, solved: "Alignment") -> None:
        """Replace the outputs; those in integrated.zarr go first and come last."""
        from stscale.alignment.record import FOLDER
        from stscale.output import add_obsm, drop_obsm
        from stscale.slices import keys

        integrated = self.run.file("integrated.zarr")
        for name in (keys.SPATIAL_ALIGNED, keys.SPATIAL_3D):
            drop_obsm(integrated, name)
        Transferring(self.run.path, self.slices, solved).forget()
        solved.save(self.run.path)
        self._write_matches(solved)
        if solved.z is not None:
            add_obsm(integrated, keys.SPATIAL_3D, (self.slices.n, 3), self._placed(solved, solved.z))
        add_obsm(integrated, keys.SPATIAL_ALIGNED, (self.slices.n, 2), self._placed(solved, None))
        kept = {name for pair in solved.pairs for name in (pair.plan, pair.plan.replace(".plan.npz", ".json"))}
        for file in self.run.file(FOLDER).iterdir():
            if file.name not in kept and file.is_file():
                file.unlink()
        own = options.load(self.run.file("config.toml"))
        with atomic_path(self.run.file("config.toml")) as part:
            part.write_text(options.dump(replace(own, align=self.config.align)), encoding="utf-8")

    def _placed(self, solved: "Alignment", z: NDArray[np.float64] | None) -> Iterator[tuple[int, NDArray[np.float64]]]:
        for i in range(len(self.slices.names)):
            xy = solved.place(i, self.slices.given(i))
            yield int(self.slices.offsets[i]), xy if z is None else np.column_stack([xy, np.full(len(xy), z[i])])

    def _write_matches(self, solved: "Alignment") -> None:
        from stscale.alignment import plan_path
        from stscale.output import MatchTable
        from stscale.transport import Plan

        name = MatchTable.name()
        if not name.endswith(".parquet"):
            self.tell("note", text=f"pyarrow cannot be imported: correspondences go to {name}, not to Parquet")
        for other in ("matches.parquet", "matches.csv.gz"):
            if other != name:
                self.run.file(other).unlink(missing_ok=True)
        with atomic_path(self.run.file(name)) as part, MatchTable(part) as table:
            for pair in solved.pairs:
                rows = [self.slices.fit_rows(self.slices.names.index(end)) for end in (pair.source, pair.target)]
                plan = Plan.load(plan_path(self.run.path, pair))
                weights, length = plan.weights, np.diff(plan.weights.indptr)
                share = weights.data / np.repeat(plan.marginals()[0], length)
                table.append(pair.source, pair.target, np.repeat(rows[0], length), rows[1][weights.indices], share)

    def transfer(self, solved: "Alignment", labels: Sequence[str], genes: Sequence[str]) -> None:
        """Carry labels and expression over through the plans; nothing here changes the alignment."""
        carry_over(self, self.slices, solved, labels, genes)

    def report(self) -> None:
        """Write report.html anew when it does not show this alignment."""
        from stscale.report import write_report

        page = self.run.file("report.html")
        # as the integration names it: running that again finds its report unchanged
        own = options.load(self.run.file("config.toml")).report
        now = digest([self.run.manifest["stages"]["write"]["digest"], "report", asdict(own)])
        if self.run.finished("report", now, page):
            self.skip("report")
            return
        self.observer({"event": "stage", "stage": "report", "state": "start"})
        with self.run.stage("report", now):
            write_report(self.run.path)


def _record(found: "PairResult", plan: "Plan", file: str) -> "PairRecord":
    """Take down a pair whose plan holds its matches."""
    from stscale.alignment import PairRecord

    return PairRecord(
        source=found.source,
        target=found.target,
        transform=found.transform,
        warp=found.warp,
        score=found.score,
        agreement=found.agreement,
        coverage=found.coverage,
        residual=found.residual,
        inlier_share=found.inlier_share,
        mirror=found.mirror,
        credible=found.credible,
        overlap=found.coverage[0],
        refined=False,
        entries=int(plan.weights.nnz),
        plan_coverage=plan.coverage,
        plan_error=float("nan"),
        anchor_value=float("nan"),
        converged=True,
        plan=file,
        notes=found.notes,
    )
