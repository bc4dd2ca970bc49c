"""The errors a user can cause; the command line prints them in one line and exits with 2."""


class StscaleError(Exception):
    """A condition the user can act on: the message says what was found, what was expected, what to do."""


class InputError(StscaleError, ValueError):
    """Data or settings that cannot be used as they are."""
