"""A stop is heard where it does no harm, once, by whoever asked."""

# ruff: noqa: PT012  # where in the block the signal arrives is what is tested
import os
import signal
import threading

import pytest

from stscale import stopping
from stscale.atomic import atomic_path
from stscale.rundir import RunFolder
from stscale.stopping import Stopped, agreed, check, deferred, heeded, request, requested


@pytest.fixture(autouse=True)
def heeding():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with heeded():
        yield
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    stopping._request.forget()


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
    signal.sigpending()  # a call into the system, after which the handler has run


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_at_once(number, code):
    with pytest.raises(Stopped, match=f"stopped by {number.name}; the same command goes on from here") as stop:
        send(number)
    assert (stop.value.code, stop.value.name, requested()) == (code, number.name, number)


def test_a_deferred_signal_waits_for_the_outermost_end():
    seen = []
    with pytest.raises(Stopped):
        with deferred():
            with deferred():
                send()
                seen.append(requested())
            seen.append("inner")
        seen.append("never")
    assert seen == [signal.SIGTERM, "inner"]


def test_an_echo_is_not_heard_twice_and_a_second_wish_does_not_wait(monkeypatch):
    with pytest.raises(Stopped) as stop, deferred():
        send()
        send(signal.SIGINT)  # as from torchrun and terminal together
        monkeypatch.setattr(stopping, "REPEAT", -1.0)
        send(signal.SIGINT)
        pytest.fail("not reached")
    assert stop.value.number == signal.SIGTERM  # the first one is what is said


def test_cleaning_up_after_a_stop_is_not_stopped_again(tmp_path):
    with pytest.raises(Stopped):
        try:
            send()
        finally:
            with atomic_path(tmp_path / "a") as part:
                part.write_text("whole")
    assert (tmp_path / "a").read_text() == "whole"


def test_an_error_in_a_deferred_block_stays_that_error():
    with pytest.raises(ValueError, match="mine"), deferred():
        send()
        raise ValueError("mine")
    assert requested() == signal.SIGTERM


def test_a_request_from_another_thread_is_met_at_the_next_stage(tmp_path):
    run = RunFolder(tmp_path / "run")
    thread = threading.Thread(target=request)
    thread.start()
    thread.join()
    assert agreed() == signal.SIGTERM
    with pytest.raises(Stopped), run.stage("graph", "d"):
        pytest.fail("not reached")
    assert run.manifest["stages"] == {}


def test_nothing_asked_is_nothing_done():
    with deferred():
        check()
    assert (agreed(), requested()) == (0, 0)


def test_another_thread_passes_through_and_changes_nothing():
    inside, go, found = threading.Event(), threading.Event(), []

    def work():
        with deferred():
            inside.set()
            go.wait(10)
        found.append("through")

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(10)
    with pytest.raises(Stopped):  # it is not the other thread's block that the signal waits for
        send()
    go.set()
    thread.join()
    assert found == ["through"]


def test_a_swap_of_folders_is_not_cut_in_two(tmp_path, monkeypatch):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "old").touch()
    replace = type(tmp_path).replace

    def slow(path, target):
        if path.name == "store":
            send()
        return replace(path, target)

    monkeypatch.setattr(type(tmp_path), "replace", slow)
    with pytest.raises(Stopped), atomic_path(tmp_path / "store") as part:
        part.mkdir()
        (part / "new").touch()
    assert [p.name for p in tmp_path.rglob("*")] == ["store", "new"]
