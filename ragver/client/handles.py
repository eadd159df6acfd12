"""Methods of a client become methods of a handle on one of its corpora."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def on_corpus(method: Callable[Concatenate[Any, str, P], T]) -> Callable[Concatenate[Any, P], T]:
    """A client's method as one of a handle: the same without the corpus, which the handle knows."""

    @wraps(method)
    def bound(handle: Any, /, *arguments: P.args, **options: P.kwargs) -> T:
        return method(handle.client, handle.name, *arguments, **options)

    signature = inspect.signature(method)
    itself, _, *others = signature.parameters.values()
    bound.__signature__ = signature.replace(parameters=[itself, *others])  # type: ignore[attr-defined]
    return bound
