"""ragver: the consistency layer for retrieval-augmented generation.

What an application needs is here by its short name: ``ragver.open`` for the stores in this process,
``ragver.AsyncClient`` and ``ragver.Client`` for a server.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragver.client import (
        AnswerRetracted,
        ApiError,
        AsyncClient,
        AsyncCorpus,
        Client,
        Corpus,
        Retries,
        Verdict,
        numbered,
        open,
    )

__version__ = "0.1.0"

__all__ = [
    "AnswerRetracted",
    "ApiError",
    "AsyncClient",
    "AsyncCorpus",
    "Client",
    "Corpus",
    "Retries",
    "Verdict",
    "__version__",
    "numbered",
    "open",
]


def __getattr__(name: str) -> Any:
    # On first use, since the command line wants the version alone, and quickly.
    if name in __all__:
        return getattr(import_module("ragver.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
