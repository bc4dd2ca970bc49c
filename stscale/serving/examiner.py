"""Whether a submission can be done, and what it will take: asked of a process that ends."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from stscale.serving.attempt import KEPT_BACK
from stscale.serving.orders import Order
from stscale.serving.refusal import RefusedError
from stscale.serving.schemas import Planned
from stscale.serving.settings import Settings
from stscale.size import said

PATIENCE = 600.0
"""Seconds that reading headers may take."""


class Examiner:
    """Plans one submission at a time, so that planning takes no more memory than one job's libraries.

    Parameters
    ----------
    settings
        Of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._one = threading.Lock()

    def __call__(self, order: Order) -> Planned:
        """Return what an order will take.

        Raises
        ------
        RefusedError
            With the line that the command itself would end with, or when it does not fit this machine.
        """
        with self._one, tempfile.TemporaryDirectory(dir=self.settings.state) as folder:
            toml = Path(folder) / "config.toml"
            toml.write_text(order.toml, encoding="utf-8")
            try:
                told = self._asked(order, toml)
            except subprocess.TimeoutExpired:
                raise RefusedError(
                    f"planning took more than {PATIENCE:.0f} s; is the disk of the slices slow?"
                ) from None
        if "error" in told:
            if told["code"] != 2:
                raise RuntimeError(told["error"])
            raise RefusedError(told["error"])
        planned = Planned(**told["planned"])
        needed, there = planned.ram_mb * 2**20, self.settings.memory
        if needed > there:
            can = f'give run.max_ram = "{said(there)}" to lower batch and block sizes'
            way = can if order.run is None else "it needs a larger machine"
            text = f"{order.submission.command} would take {said(needed)} of memory and jobs here have {said(there)}"
            raise RefusedError(f"{text}; {way}", planned)
        return planned

    def _asked(self, order: Order, toml: Path) -> dict[str, Any]:
        env = {k: v for k, v in os.environ.items() if k not in KEPT_BACK}
        if self.settings.devices[0] is not None:
            env["CUDA_VISIBLE_DEVICES"] = self.settings.devices[0]
        question = {
            "command": order.submission.command,
            "slices": [str(path) for path in order.slices],
            "run": str(order.run) if order.run else None,
            "out": str(order.out),
            "toml": str(toml),
            "threads": self.settings.threads,
            "labels": order.submission.transfer_labels,
            "genes": order.submission.transfer_genes,
        }
        done = subprocess.run(
            [sys.executable, "-m", "stscale.serving.examine"],
            input=json.dumps(question),
            capture_output=True,
            text=True,
            check=False,
            env=env,
            cwd=toml.parent,
            timeout=PATIENCE,
        )
        lines = done.stdout.splitlines()
        if not lines:
            raise RuntimeError(f"planning ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        answer: dict[str, Any] = json.loads(lines[-1])
        return answer
