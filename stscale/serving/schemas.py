"""What goes over the wire, as the OpenAPI document has it."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

Place = Annotated[str, Field(min_length=1, max_length=4096)]
Name = Annotated[str, Field(min_length=1, max_length=1024)]


class State(StrEnum):
    """Where a job is: the first three go on, the last three are its ends."""

    queued = "queued"
    running = "running"
    cancelling = "cancelling"
    done = "done"
    failed = "failed"
    cancelled = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self in (State.done, State.failed, State.cancelled)


def _writable(config: dict[str, JsonValue] | str) -> dict[str, JsonValue] | str:
    """Refuse what TOML cannot say."""
    todo: list[JsonValue] = [] if isinstance(config, str) else [config]
    while todo:
        value = todo.pop()
        if value is None:
            raise ValueError("null is no value of an option; leave the option out")
        if isinstance(value, float) and not abs(value) < float("inf"):
            raise ValueError("JSON has no infinite numbers; give the configuration as a TOML text")
        todo += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return config


Config = Annotated[dict[str, JsonValue] | str, AfterValidator(_writable)]


class Submission(BaseModel):
    """A job to be done: a command of `stscale`, what it works on, and its options."""

    model_config = ConfigDict(extra="forbid")

    command: Literal["integrate", "align", "map"] = Field(description="What to do.")
    slices: list[Place] = Field(
        default=[],
        max_length=100_000,
        description="Paths or patterns in the folders of slices; relative to the first folder that has them. For "
        "`integrate`, `map`, and `align` without `run`.",
    )
    run: Place | None = Field(default=None, description="Finished run in the folder of runs, for `align` and `map`.")
    out: Place | None = Field(
        default=None,
        description="New folder in the folder of runs; by default the command and the job's number. An interrupted "
        "run there goes on. Not for `align` with `run`.",
    )
    config: Config = Field(
        default={},
        description="The tables of `stscale config`, as JSON or as a TOML text; `preset` too. `map` takes everything "
        "from its run but `run.seed`, `run.threads` and `ingest.split`.",
        examples=[{"domains": {"k": 7}}, "[domains]\nk = 7\n"],
    )
    transfer_labels: list[Name] = Field(default=[], max_length=1000, description="`align`: obs columns to carry over.")
    transfer_genes: list[Name] = Field(default=[], max_length=100_000, description="`align`: genes to carry over.")
    restat: bool = Field(default=False, description="`map`: measure the normalisation anew on each slice.")

    @model_validator(mode="after")
    def _fits_the_command(self) -> "Submission":
        wrong: list[tuple[str, object]] = []
        if self.command == "integrate":
            wrong += [("run", self.run)]
        if self.command == "align" and self.run:
            wrong += [("slices", self.slices), ("out", self.out)]
        if self.command != "align":
            wrong += [("transfer_labels", self.transfer_labels), ("transfer_genes", self.transfer_genes)]
        wrong += [("restat", self.restat)] if self.command != "map" else []
        for name, value in wrong:
            if value:
                beside = f"{self.command} with run" if self.command == "align" else self.command
                raise ValueError(f"{beside} takes no {name}")
        if self.command == "map" and self.run is None:
            raise ValueError("map needs run: a finished run")
        if any("," in gene for gene in self.transfer_genes):
            raise ValueError("transfer_genes: a gene a place, without commas")
        return self


class Planned(BaseModel):
    """What a job will take at its peak, as `stscale plan` says; MiB and seconds.

    Jobs on a finished run are taken to need what that run's own plan says, time and disk unknown.
    """

    ram_mb: float
    vram_mb: float
    disk_mb: float | None = None
    seconds: float | None = None


class Progress(BaseModel):
    """The last thing a job said."""

    stage: str | None = None
    step: int | None = None
    total: int | None = None


class Job(BaseModel):
    """A job as the service knows it."""

    id: int
    state: State
    command: str
    submission: Submission
    out: str = Field(description="Run folder, on the machine of the service.")
    planned: Planned
    submitted: float = Field(description="Seconds since 1970.")
    started: float | None = Field(default=None, description="When its first process started.")
    ended: float | None = None
    worker: int | None = Field(default=None, description="Number of the worker that has it.")
    attempts: int = Field(default=0, description="Processes started for it that were not stopped by the service.")
    exit_code: int | None = Field(default=None, description="Of its last process: 0, 1, 2, 143; below 0 a signal.")
    error: str | None = Field(default=None, description="One line, of a job that failed.")
    waits_for: str | None = Field(default=None, description="Why it has not started yet.")
    progress: Progress = Progress()
    report: bool = Field(default=False, description="Whether there is a report.html to fetch.")


class JobPage(BaseModel):
    """Some of the jobs, the newest first."""

    jobs: list[Job]
    total: int = Field(description="Jobs in all, of the states that were asked for.")


class Artefact(BaseModel):
    """A file in a run folder."""

    path: str = Field(description="Relative to the run folder.")
    size: int = Field(description="Bytes.")


class ArtefactPage(BaseModel):
    """Some files of a run folder, sorted by path."""

    files: list[Artefact]
    total: int


class Machine(BaseModel):
    """What jobs share."""

    version: str
    memory_mb: float = Field(description="What all jobs together may take.")
    reserved_mb: float = Field(description="What the plans of the running ones say.")
    workers: list[str] = Field(description="`GPU 0`, or `CPU`, for each worker.")
    running: int
    queued: int


class Health(BaseModel):
    """The service is there, and starts jobs."""

    status: Literal["ok"] = "ok"
    token: bool = Field(description="Whether clients must show a token.")


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="One line: what was found, what was expected, what to do.")
    planned: Planned | None = Field(default=None, description="Of a job that does not fit this machine.")
