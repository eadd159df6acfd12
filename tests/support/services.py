"""The services as an application has them, on a database and an index directory of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr, TypeAdapter

from ragver import wire
from ragver.bootstrap import Services, open_services
from ragver.clock import Clock
from ragver.settings import Settings

CORPUS = "handbook"
SECRET = "only the tests sign with this"
CATCH_UP_S_MAX = 30.0
POLL_S = 0.01

_put: TypeAdapter[wire.Put] = TypeAdapter(wire.Put)


@asynccontextmanager
async def open_test_services(
    database_url: str | None,
    directory: Path,
    *,
    indexing: bool = False,
    clock: Clock | None = None,
    **settings: Any,
) -> AsyncIterator[Services]:
    """Services on a migrated database, with their index in `directory`; without a URL PostgreSQL is embedded there.

    One process (or one block) at a time may hold a directory; several may share the database.
    """
    made = Settings(
        **{
            "database_url": database_url,
            "qdrant_url": None,
            "data_dir": directory,
            "secret_key": SecretStr(SECRET),
            **settings,
        }
    )
    async with open_services(made, role="test", indexing=indexing, clock=clock) as services:
        yield services


async def make_corpus(services: Services, name: str = CORPUS, **wanted: Any) -> wire.Corpus:
    """A new corpus; `wanted` are the fields of its creation."""
    return await services.catalog.create(wire.CorpusCreate(name=name, **wanted))


def put(key: str, text: str | None = None, **more: Any) -> wire.Put:
    """A put of a text, or of `chunks`."""
    return _put.validate_python({"op": "put", "key": key, "text": text, **more})


def delete(key: str, **more: Any) -> wire.Delete:
    return wire.Delete(op="delete", key=key, **more)


def rename(key: str, new_key: str) -> wire.Rename:
    return wire.Rename(op="rename", key=key, new_key=new_key)


def set_acl(key: str, *labels: str) -> wire.SetAcl:
    return wire.SetAcl(op="set_acl", key=key, acl=list(labels))


def set_metadata(key: str, **metadata: Any) -> wire.SetMetadata:
    return wire.SetMetadata(op="set_metadata", key=key, metadata=metadata)


async def commit(
    services: Services,
    corpus: str,
    *ops: wire.Operation,
    reason: str | None = None,
    actor: str | None = None,
    **how: Any,
) -> wire.CommitResult:
    """One commit of these operations; `how` are the options of ``Writer.commit``."""
    request = wire.CommitRequest(ops=list(ops), reason=reason, actor=actor)
    return await services.writer.commit(corpus, request, **how)


async def caught_up(services: Services, corpus: str = CORPUS) -> wire.Corpus:
    """Wait until the index holds everything up to the head; fails after `CATCH_UP_S_MAX`."""
    async with asyncio.timeout(CATCH_UP_S_MAX):
        while True:
            described = await services.catalog.corpus(corpus)
            if described.applied_epoch == described.head:
                return described
            await asyncio.sleep(POLL_S)
