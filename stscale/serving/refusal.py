"""Why a request is not done."""

from typing import Any

from stscale.errors import InputError
from stscale.serving.schemas import Planned, Problem


class RefusedError(InputError):
    """A submission that cannot be done here.

    Parameters
    ----------
    text
        One line.
    planned
        What it would have taken, where that is the reason.
    """

    def __init__(self, text: str, planned: Planned | None = None) -> None:
        super().__init__(text)
        self.planned = planned

    def problem(self) -> dict[str, Any]:
        """Return the body of the answer."""
        return Problem(detail=str(self), planned=self.planned).model_dump(exclude_none=True)


class ConflictError(InputError):
    """A request that does not fit the state that a job is in."""
