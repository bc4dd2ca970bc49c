"""Run one function in a fresh process, so that its time and peak memory are its own.

`call` starts `python -m benchmarks.child module:function JSON-arguments RESULT-FILE` and reads the result back.
"""

import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
TAIL = 3000
"""Characters of a failed child's output that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a child returned and what it cost.

    Attributes
    ----------
    value
        The function's result, through JSON.
    seconds
        Wall time of the call, with the imports the function makes and without the interpreter's start.
    peak_rss_mib
        Largest resident set of the process up to the end of the call, MiB.
    """

    value: Any
    seconds: float
    peak_rss_mib: float


class ChildError(RuntimeError):
    """A child that failed.

    Attributes
    ----------
    code
        Exit status; minus the signal's number where a signal ended it.
    said
        The end of what it printed.
    """

    def __init__(self, function: str, code: int, said: str) -> None:
        super().__init__(f"{function} ended with code {code}:\n{said}")
        self.code = code
        self.said = said

    @property
    def out_of_memory(self) -> bool:
        """Whether it was killed (as a system short of memory does) or an allocation was refused."""
        words = ("MemoryError", "can't allocate memory", "not enough memory", "Cannot allocate memory", "bad_alloc")
        return self.code in (-9, 137) or any(word in self.said for word in words)


def call(
    function: str, arguments: Mapping[str, Any], *, threads: int, environment: Mapping[str, str] | None = None
) -> Outcome:
    """Call `module:function` with keyword arguments in a fresh process.

    Parameters
    ----------
    function
        `package.module:name`.
    arguments
        Keyword arguments, JSON values only.
    threads
        Threads of every OpenMP and BLAS runtime; they wait without spinning (`OMP_WAIT_POLICY=PASSIVE`).
    environment
        Further variables of the child, over these.

    Raises
    ------
    ChildError
        When the child fails, with the end of what it printed.
    """
    own = {"OMP_WAIT_POLICY": "PASSIVE", **dict.fromkeys(THREAD_VARIABLES, str(threads)), **(environment or {})}
    with tempfile.TemporaryDirectory(prefix="stscale-child-") as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.child", function, json.dumps(dict(arguments)), str(result)]
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode or not result.exists():
            said = done.stdout.decode(errors="replace")[-TAIL:]
            raise ChildError(function, done.returncode, said)
        return Outcome(**json.loads(result.read_text(encoding="utf-8")))


def peak_rss_mib() -> float:
    """Return the peak resident set of this process, MiB.

    Linux hands `ru_maxrss` down from the parent through vfork and exec, so a small child of a large parent would
    report its parent's peak; `VmHWM` starts anew with the program and is read where there is one.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Entry of the child process."""
    name, arguments, result = sys.argv[1:]
    module, function = name.split(":")
    start = time.perf_counter()
    value = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    seconds = time.perf_counter() - start
    outcome = {"value": value, "seconds": seconds, "peak_rss_mib": peak_rss_mib()}
    Path(result).write_text(json.dumps(outcome), encoding="utf-8")


if __name__ == "__main__":
    main()
