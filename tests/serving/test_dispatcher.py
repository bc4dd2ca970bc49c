"""Which job runs when, and what becomes of it when things end that should not have."""

import json
import os
import signal
from pathlib import Path

import pytest
from made_service import MIB, fake, planned, served, settings, state, until

from stscale.errors import InputError
from stscale.serving import Service
from stscale.serving.lock import Lock


@pytest.fixture
def folder(monkeypatch, tmp_path) -> Path:
    settings(tmp_path)
    fake(monkeypatch, tmp_path)
    return tmp_path


def submit(client, k: int) -> int:
    answer = client.post("/jobs", json={"command": "integrate", "slices": [f"s{k}"]})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"
    return answer.json()["id"]


def say(folder: Path, k: int, word: str) -> None:
    (folder / "slices" / f"s{k}" / word).touch()


def starts(folder: Path, k: int) -> list[list[str]]:
    path = folder / "slices" / f"s{k}" / "starts"
    return [line.split() for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def test_jobs_run_in_order_as_far_as_their_plans_fit(folder, monkeypatch):
    monkeypatch.setenv("STSCALE_TOKEN", "not for jobs")
    with served(Service(settings(folder, devices=("3", "5", "7")), examine=planned(400))) as client:
        one, two, three, four = (submit(client, k) for k in range(4))
        until(lambda: starts(folder, 0) and starts(folder, 1))
        shown = client.get(f"/jobs/{three}").json()
        assert shown["state"] == "queued"
        assert shown["waits_for"] == "400M of memory; the running jobs leave 200M of 1000M"
        assert client.get(f"/jobs/{four}").json()["waits_for"] == f"job {three}, which is before it"
        machine = client.get("/machine").json()
        assert (machine["reserved_mb"], machine["running"], machine["queued"]) == (800, 2, 2)
        assert machine["workers"] == ["GPU 3", "GPU 5", "GPU 7"]
        say(folder, 0, "go")
        until(lambda: starts(folder, 2))
        assert state(client, one) == "done"
        assert starts(folder, 0)[0][1:] == ["3", "None"]
        assert starts(folder, 1)[0][1] == "5"
        assert starts(folder, 2)[0][1] == "3"  # the worker that is free again
        assert not starts(folder, 3)
        for k in (1, 2, 3):
            say(folder, k, "go")
        until(lambda: all(state(client, n) == "done" for n in (two, three, four)))
        assert client.get(f"/jobs/{four}").json()["attempts"] == 1


def test_one_worker_one_job_and_a_lone_job_always_starts(folder):
    with served(Service(settings(folder, devices=(None,)), examine=planned(5000))) as client:
        submit(client, 0)
        waiting = submit(client, 1)
        until(lambda: starts(folder, 0))
        until(lambda: client.get(f"/jobs/{waiting}").json()["waits_for"] == "a worker")
        assert client.get("/jobs/1").json()["progress"] == {"stage": "train", "step": 1, "total": 9}


def test_cancel_waiting_and_running(folder):
    with served(Service(settings(folder, devices=(None,)), examine=planned(1))) as client:
        running, waiting = submit(client, 0), submit(client, 1)
        until(lambda: starts(folder, 0))
        assert client.post(f"/jobs/{waiting}/cancel").json()["state"] == "cancelled"
        answer = client.post(f"/jobs/{running}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
        until(lambda: state(client, running) == "cancelled")
        assert client.get(f"/jobs/{running}").json()["exit_code"] == 143
        again = client.post(f"/jobs/{running}/cancel")
        assert (again.status_code, again.json()) == (409, {"detail": "job 1 has ended; there is nothing to cancel"})
    assert not starts(folder, 1)


def test_who_does_not_stop_is_killed_after_the_grace(folder):
    say(folder, 0, "deaf")
    with served(Service(settings(folder, devices=(None,), grace=0.2), examine=planned(1))) as client:
        submit(client, 0)
        until((folder / "slices" / "s0" / "deafened").exists)
        client.post("/jobs/1/cancel")
        until(lambda: state(client, 1) == "cancelled")
        assert client.get("/jobs/1").json()["exit_code"] == -signal.SIGKILL


def test_a_killed_job_is_tried_again_and_then_failed_with_its_last_words(folder):
    say(folder, 0, "die")
    with served(Service(settings(folder, devices=(None,), retries=2), examine=planned(1))) as client:
        submit(client, 0)
        until(lambda: state(client, 1) == "failed")
        shown = client.get("/jobs/1").json()
        assert (shown["attempts"], shown["exit_code"]) == (3, -9)
        assert shown["error"] == "killed by SIGKILL 3 times; its last words: out of something"
    assert len(starts(folder, 0)) == 3


def test_a_killed_job_that_then_works(folder):
    with served(Service(settings(folder, devices=(None,)), examine=planned(1))) as client:
        submit(client, 0)
        process = int(until(lambda: starts(folder, 0))[0][0])
        os.kill(process, signal.SIGKILL)
        until(lambda: len(starts(folder, 0)) == 2)
        say(folder, 0, "go")
        until(lambda: state(client, 1) == "done")


def test_bad_input_is_not_tried_again(folder):
    say(folder, 0, "fail")
    with served(Service(settings(folder, devices=(None,)), examine=planned(1))) as client:
        submit(client, 0)
        until(lambda: state(client, 1) == "failed")
        shown = client.get("/jobs/1").json()
        assert (shown["attempts"], shown["exit_code"], shown["error"]) == (1, 2, "this cannot be done")
    assert len(starts(folder, 0)) == 1


def test_a_service_that_ends_stops_its_jobs_and_the_next_goes_on(folder):
    with served(Service(settings(folder, devices=(None,)), examine=planned(1))) as client:
        submit(client, 0)
        submit(client, 1)
        until(lambda: starts(folder, 0))
    with pytest.raises(ProcessLookupError):
        os.kill(int(starts(folder, 0)[0][0]), 0)
    with served(Service(settings(folder, devices=(None,)), examine=planned(1))) as client:
        until(lambda: len(starts(folder, 0)) == 2)
        assert client.get("/jobs/1").json()["attempts"] == 1  # it was not the job's fault
        say(folder, 0, "go")
        say(folder, 1, "go")
        until(lambda: state(client, 2) == "done")


def crashed(service: Service) -> None:
    """End a service as SIGKILL would: its threads stop, nobody is told."""
    service.dispatcher._closing = True
    service.dispatcher._thread.join()
    service.store.close()
    service._only.drop()


def test_a_process_that_outlives_its_service_is_not_started_again(folder):
    first = Service(settings(folder, devices=(None,)), examine=planned(1))
    first.open()
    first.submit(_order(0))
    until(lambda: starts(folder, 0))
    crashed(first)
    with served(Service(settings(folder, devices=(None,)), examine=planned(1))) as client:
        assert state(client, 1) == "running"
        assert not Lock(folder / "state" / "jobs" / "1" / "lock").free()
        submit(client, 1)
        until(lambda: client.get("/jobs/2").json()["waits_for"] == "a worker")  # its worker is busy
        say(folder, 0, "go")
        until(lambda: state(client, 1) == "done")
        assert client.get("/jobs/1").json()["exit_code"] == 0
        say(folder, 1, "go")
        until(lambda: state(client, 2) == "done")
    assert len(starts(folder, 0)) == 1
    for process in first.dispatcher._running.values():
        process._process.wait()


def test_a_process_that_outlives_its_service_can_be_cancelled(folder):
    first = Service(settings(folder, devices=(None,)), examine=planned(1))
    first.open()
    first.submit(_order(0))
    until(lambda: starts(folder, 0))
    crashed(first)
    with served(Service(settings(folder, devices=(None,)), examine=planned(1))) as client:
        client.post("/jobs/1/cancel")
        until(lambda: first.dispatcher._running[1].ended())  # as the parent would: no zombie holds the lock
        until(lambda: state(client, 1) == "cancelled")
        assert client.get("/jobs/1").json()["exit_code"] == 143


@pytest.mark.parametrize(
    ("line", "expected"),
    [(None, "queued"), ({"event": "done"}, "done"), ({"event": "stopped", "exit": 143}, "queued")],
)
def test_what_a_job_that_ended_without_a_service_said_is_heard(folder, line, expected):
    first = Service(settings(folder), examine=planned(1))
    first.open()
    first.submit(_order(0))
    first.store.move(1, ["queued"], state="running", worker=0, attempts=1)
    if line is not None:
        with first.journal(1).events.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": 1.0, **line}) + "\n" + '{"time": 2.0, "ev')  # and half a line
    crashed(first)
    with served(Service(settings(folder), examine=planned(1))) as client:
        shown = client.get("/jobs/1").json()
        assert (shown["state"], shown["worker"]) == (expected, None)
        assert shown["attempts"] == (1 if expected == "done" else 0)


def test_two_services_do_not_share_a_folder(folder):
    second = Service(settings(folder))
    with served(Service(settings(folder), examine=planned(1))), pytest.raises(InputError, match="another service"):
        second.open()


def test_a_path_that_became_a_link_is_not_followed(folder):
    with served(Service(settings(folder, devices=(None,)), examine=planned(1))) as client:
        submit(client, 0)
        until(lambda: starts(folder, 0))
        submit(client, 1)
        (folder / "elsewhere").mkdir()
        (folder / "slices" / "s1").rmdir()
        (folder / "slices" / "s1").symlink_to(folder / "elsewhere")
        say(folder, 0, "go")
        until(lambda: state(client, 2) == "failed")
        assert "now leads to" in client.get("/jobs/2").json()["error"]
    assert not (folder / "elsewhere" / "starts").exists()


def test_the_memory_of_a_service_is_what_jobs_share(folder):
    service = Service(settings(folder, memory=500 * MIB, devices=(None, None)), examine=planned(300))
    with served(service) as client:
        submit(client, 0)
        submit(client, 1)
        until(lambda: starts(folder, 0))
        until(lambda: "the running jobs leave 200M of 500M" in (client.get("/jobs/2").json()["waits_for"] or ""))


def _order(k: int):
    from stscale.serving.schemas import Submission

    return Submission(command="integrate", slices=[f"s{k}"])
