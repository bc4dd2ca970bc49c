"""Who may ask."""

import secrets

from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser, SimpleUser
from starlette.requests import HTTPConnection

OPEN = ("/", "/health", "/openapi.json")
"""Paths that tell nothing of jobs."""


class Token(AuthenticationBackend):
    """One bearer token for all clients, asked for before a request's body is read.

    Parameters
    ----------
    token
        The token; None lets everybody in.
    """

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode()

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Let a request pass, or raise."""
        if self._token is None or conn.url.path in OPEN:
            return None
        scheme, _, shown = conn.headers.get("Authorization", "").partition(" ")
        # compared in a time that does not depend on where they differ
        right = secrets.compare_digest(shown.strip().encode("latin-1", errors="replace"), self._token)
        if scheme.lower() != "bearer" or not right:
            raise AuthenticationError("show the service's token: Authorization: Bearer TOKEN")
        return AuthCredentials(["jobs"]), SimpleUser("client")
