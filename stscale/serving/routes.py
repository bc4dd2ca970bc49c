"""What can be asked about jobs."""

from collections.abc import AsyncIterator
from pathlib import Path as Folder
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Request, Response
from fastapi.responses import FileResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from stscale.serving.artefacts import REPORT, artefact, artefacts
from stscale.serving.events import follow
from stscale.serving.page import SANDBOX
from stscale.serving.schemas import ArtefactPage, Job, JobPage, Machine, Problem, State, Submission
from stscale.serving.service import Service

LARGEST = 2**53 - 1
"""Numbers that JSON and SQLite both hold."""

jobs = APIRouter(tags=["jobs"])


def problem(description: str) -> dict[str, Any]:
    """Describe a refusal: JSON whatever the route's own answers are."""
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


NONE: dict[int | str, dict[str, Any]] = {404: problem("There is no such job or file.")}
UNREAD: dict[int | str, dict[str, Any]] = {400: problem("The body is no text.")}
CLASH: dict[int | str, dict[str, Any]] = {409: problem("It does not fit the state of a job.")}
FILE: dict[int | str, dict[str, Any]] = {
    206: {"description": "The part that was asked for."},
    416: {"description": "There is no such part.", "content": {"text/plain": {"schema": {"type": "string"}}}},
    400: {"description": "The range cannot be read.", "content": {"text/plain": {"schema": {"type": "string"}}}},
}
BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
}
PAGE: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {"schema": {"type": "string"}}}}}

Number = Annotated[int, Path(ge=1, le=LARGEST, description="Number of the job.")]
Offset = Annotated[int, Query(ge=0, le=LARGEST)]


def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


Asked = Annotated[Service, Depends(_service)]


def _job(service: Asked, number: Number) -> Job:
    found = service.job(number)
    if found is None:
        raise HTTPException(404, f"there is no job {number}")
    return found


Known = Annotated[Job, Depends(_job)]


@jobs.get("/machine", summary="What jobs share")
def machine(service: Asked) -> Machine:
    """Return memory and workers of the service, and what is in use."""
    return service.machine()


@jobs.post("/jobs", status_code=201, summary="Submit a job", responses={**CLASH, **UNREAD})
def submit(service: Asked, submission: Submission, response: Response) -> Job:
    """Check a submission as the command line would, plan its memory, and queue it.

    A job that would never fit is refused here, with its plan; one that does not fit beside the running ones waits.
    """
    job = service.submit(submission)
    response.headers["Location"] = f"/jobs/{job.id}"
    return job


@jobs.get("/jobs", summary="List jobs")
def listed(
    service: Asked,
    state: Annotated[list[State] | None, Query(max_length=len(State), description="Only these; repeatable.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Offset = 0,
) -> JobPage:
    """Return jobs, the newest first."""
    return service.page(state or [], limit, offset)


@jobs.get("/jobs/{number}", summary="Show a job", responses=NONE)
def shown(job: Known) -> Job:
    """Return a job."""
    return job


@jobs.post("/jobs/{number}/cancel", status_code=202, summary="Cancel a job", responses={**NONE, **CLASH})
def cancel(service: Asked, job: Known) -> Job:
    """Stop a job: one that runs writes a checkpoint first, from which another with the same `out` goes on."""
    service.cancel(job.id)
    return _job(service, job.id)


@jobs.delete("/jobs/{number}", status_code=204, summary="Delete a job that has ended", responses={**NONE, **CLASH})
def delete(
    service: Asked,
    job: Known,
    files: Annotated[bool, Query(description="Delete the run folder too, if this job made it.")] = False,
) -> None:
    """Forget a job; its run folder stays unless `files` is set."""
    service.delete(job.id, files=files)


@jobs.get("/jobs/{number}/events", response_class=EventSourceResponse, summary="Follow a job", responses={**NONE})
async def events(
    service: Asked,
    job: Known,
    last: Annotated[int, Header(alias="Last-Event-ID", ge=0, le=LARGEST, description="Go on after this one.")] = 0,
) -> AsyncIterator[ServerSentEvent]:
    """Stream what `--progress json` says, a line an event with its number as id, then an event `end` with the state."""
    journal = service.journal(job.id)
    async for event in follow(journal, last, lambda: service.store.get(job.id), service.leaving):
        yield event


@jobs.get(
    "/jobs/{number}/report", response_class=FileResponse, summary="Fetch the report", responses={**NONE, **FILE, **PAGE}
)
def report(job: Known) -> Response:
    """Return report.html of a job's run folder, which may be that of an earlier state of the run."""
    return _sent(job, REPORT, {"Content-Security-Policy": SANDBOX})


@jobs.get("/jobs/{number}/files", summary="List the files of a job", responses=NONE)
def files(
    job: Known,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    offset: Offset = 0,
) -> ArtefactPage:
    """Return the files of a job's run folder, sorted by path."""
    found = artefacts(Folder(job.out))
    return ArtefactPage(files=found[offset : offset + limit], total=len(found))


@jobs.get(
    "/jobs/{number}/files/{path:path}",
    response_class=FileResponse,
    summary="Fetch a file",
    responses={**NONE, **FILE, **BYTES},
)
def fetched(job: Known, path: Annotated[str, Path(description="As the list of files has it.")]) -> Response:
    """Return a file of a job's run folder, or a part of it (`Range`)."""
    return _sent(job, path, {}, download=True)


def _sent(job: Job, path: str, headers: dict[str, str], *, download: bool = False) -> Response:
    found = artefact(Folder(job.out), path)
    if found is None:
        raise HTTPException(404, f"job {job.id} has no such file; GET /jobs/{job.id}/files lists those it has")
    kind = "application/octet-stream" if download else "text/html"
    headers = {"X-Content-Type-Options": "nosniff", **headers}
    return FileResponse(found, media_type=kind, filename=found.name if download else None, headers=headers)
