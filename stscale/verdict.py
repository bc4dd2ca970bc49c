"""How a command ends: its exit code, and the one line about it."""

import errno

from stscale.errors import StscaleError
from stscale.stopping import Stopped, requested

PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""What the system says of a place that cannot be used: no bug of ours."""

CODES = """
Exit codes: **0** done; **2** bad input, settings or place, in one line; **1** a bug (`--debug` shows where);
**143** stopped by SIGTERM, **130** by SIGINT (Ctrl-C): the same command goes on from there.
"""


def verdict(error: BaseException) -> tuple[int, str]:
    """Return exit code and line of what ended a command."""
    if not isinstance(error, Stopped) and requested():  # another rank, or a library, met the stop first
        error = Stopped(requested())
    if isinstance(error, Stopped):
        return error.code, str(error)
    text = " ".join(str(error).split())
    if isinstance(error, StscaleError):
        return 2, text
    if isinstance(error, OSError) and error.errno in PLACE:
        return 2, f"{text}; give places that this user may read and write, with room left"
    return 1, f"{type(error).__name__}: {text} (this is a bug; --debug shows where)"
