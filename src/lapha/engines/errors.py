"""What engines raise when the world fails them; defined in `lapha.errors`."""

from lapha.errors import BadAnswerError, EngineError, RequestRefusedError, ServerFailedError

__all__ = ["BadAnswerError", "EngineError", "RequestRefusedError", "ServerFailedError"]
