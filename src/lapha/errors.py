"""Everything that lapha raises on purpose: one base, and each is also the built-in error that it amounts to.

``except ValueError`` catches bad input, ``except RuntimeError`` what the world failed to do, and ``except LaphaError`` both,
and nothing that is not lapha's.
"""

from __future__ import annotations


class LaphaError(Exception):
    """Base of all errors that lapha raises on purpose."""


class ArgumentError(LaphaError, ValueError):
    """An argument or an option that cannot work: "name: expected …, got …"."""


class MissingExtraError(LaphaError, ImportError, ValueError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class FileProblem(LaphaError, ValueError):
    """A file that is not what it should be. Names the file, what was expected and what came."""

    def __init__(self, path: str, expected: str, got: str = "something else") -> None:
        super().__init__(f"{path}: expected {expected}, got {got}")
        self._parts = path, expected, got

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self._parts


class EngineError(LaphaError, RuntimeError):
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


class SandboxError(LaphaError, RuntimeError):
    """The sandbox itself failed (not the code in it): it was closed, its process died, its server is unreachable."""


class SandboxUnavailable(MissingExtraError):
    """This back end cannot run here. The message says how to get it; nothing falls back to unconfined code."""


class VerifierError(LaphaError, RuntimeError):
    """The verifier raised too often for training to mean anything."""


def _rebuild(kind: type[EngineError], message: str, request: str, server: str) -> EngineError:
    return kind(message, request=request, server=server)
