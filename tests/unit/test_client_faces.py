"""The client has one implementation: its synchronous twin and the handles on a corpus follow from it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ragver.client import AsyncClient, AsyncCorpus, Client, Corpus
from ragver.client.derive import SOURCES, derived

NOT_ON_A_HANDLE = {"create_corpus", "delete_corpus"}
RENAMED = {
    "corpus": "describe",
    "put_document": "put",
    "delete_document": "delete",
    "delete_documents": "delete_many",
}


def public(kind: type) -> dict[str, Callable[..., Any]]:
    return {name: method for name, method in inspect.getmembers(kind, callable) if not name.startswith("_")}


def parameters(method: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(method).parameters.values()
    return [(one.name, one.kind, one.default) for one in found]


@pytest.mark.parametrize("target", SOURCES, ids=lambda target: target.name)
def test_the_synchronous_modules_in_the_tree_are_the_derived_ones(target: Path) -> None:
    """If not: `make derive`."""
    assert derived()[target] == target.read_text(encoding="utf-8")


def test_both_faces_have_the_same_methods() -> None:
    assert {name: parameters(method) for name, method in public(AsyncClient).items()} == {
        name: parameters(method) for name, method in public(Client).items()
    }
    assert {name: parameters(method) for name, method in public(AsyncCorpus).items()} == {
        name: parameters(method) for name, method in public(Corpus).items()
    }


def test_nothing_of_the_synchronous_face_is_asynchronous() -> None:
    for kind in (Client, Corpus):
        for name, method in inspect.getmembers(kind, callable):
            inner = inspect.unwrap(method)
            assert not inspect.iscoroutinefunction(inner), name
            assert not inspect.isasyncgenfunction(inner), name


@pytest.mark.parametrize(("client", "handle"), [(AsyncClient, AsyncCorpus), (Client, Corpus)])
def test_a_handle_has_what_its_client_does_to_one_corpus(client: type, handle: type) -> None:
    """A new method of the client gets a line in ``ragver/client/corpus.py``."""
    own = public(handle)
    for name, method in public(client).items():
        _, *rest = parameters(method)
        if rest and rest[0][0] == "corpus" and name not in NOT_ON_A_HANDLE:
            twin = own.pop(RENAMED.get(name, name))
            assert rest[1:] == parameters(twin)[1:]
            assert method.__doc__ == twin.__doc__

    assert {} == own
