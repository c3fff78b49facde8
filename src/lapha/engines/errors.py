"""What engines raise when the world fails them."""

from __future__ import annotations


class EngineError(RuntimeError):
    """An engine could not answer a request.

    Args:
        message: what went wrong.
        request: name of the request, or "".
        server: where it was sent last, or "".
    """

    def __init__(self, message: str, *, request: str = "", server: str = "") -> None:
        where = f" from {server}" if server else ""
        super().__init__(f"request {request or '(unnamed)'!r}{where}: {message}")
        self.message = message
        self.request = request
        self.server = server

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.request, self.server)


class RequestRefusedError(EngineError):
    """A server understood the request and refuses it: asking again, or elsewhere, would not help."""


class ServerFailedError(EngineError):
    """A server did not answer, or said that it cannot now: another one, or the same one later, may."""


class BadAnswerError(ServerFailedError):
    """A server answered with something that cannot be: missing parts, wrong types, numbers out of range."""


def _rebuild(kind: type[EngineError], message: str, request: str, server: str) -> EngineError:
    return kind(message, request=request, server=server)
