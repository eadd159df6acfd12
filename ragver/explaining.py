"""The whole story of a chunk, a document or a recorded answer, put together from what the ledger keeps anyway."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ragver import wire
from ragver.errors import AnswerNotFound, ChunkNotFound, DocumentNotFound
from ragver.ledger import answers, chunks, stories
from ragver.ledger.answers import RecordedAnswer
from ragver.ledger.chunks import ChunkRecord
from ragver.ledger.database import Database
from ragver.ledger.stories import Applied, Commit, Erased, Mention, Piece, Version
from ragver.liveness import Views
from ragver.types import Cause, ChunkId, CorpusId, Epoch
from ragver.validator import CHUNK_ID_MAX

_ORDER = ("born", "version", "renamed", "died", "erased", "indexed", "retrieved", "validated", "delivered")
"""Of what has the same epoch: what the commit did, then what was done with it."""

Events = Iterator[wire.StoryEvent]


class Explanations:
    """Tells stories; reads the ledger alone."""

    def __init__(self, database: Database, views: Views) -> None:
        self._database = database
        self._views = views

    async def chunk(self, name: str, chunk_id: ChunkId) -> wire.Story:
        """A chunk's: born, carried on, indexed, retrieved, cited, dead. Raises ``ChunkNotFound``."""
        corpus, head = await self._moment(name)
        found = await stories.pieces(self._database, corpus, [chunk_id]) if chunk_id <= CHUNK_ID_MAX else []
        if not found:
            raise ChunkNotFound(f"there has never been a chunk {chunk_id} in {name!r}")
        (piece,) = found
        versions = await stories.versions(self._database, corpus, piece.document_id)
        mentions, erasures, applied = await asyncio.gather(
            stories.mentions(self._database, corpus, [chunk_id]),
            stories.erasures(self._database, corpus, [piece.document_id]),
            stories.applied(self._database, corpus),
        )
        erasures = [erased for erased in erasures if chunk_id in erased.chunk_ids]
        log = await stories.commits(self._database, corpus, _epochs(versions, erasures))
        events = [
            *_life(piece, versions, erasures, log),
            *_indexed(piece, applied),
            *_mentioned(mentions),
            *_erased(erasures, log, chunk_id=str(chunk_id)),
        ]
        complete = len(versions) < stories.VERSIONS_MAX and len(mentions) < stories.MENTIONS_MAX
        return _story("chunk", str(chunk_id), _state_of_piece(piece), head, events, complete)

    async def document(self, name: str, key: str) -> wire.Story:
        """That of the document that lives under a key, or was the last to. Raises ``DocumentNotFound``."""
        corpus, head = await self._moment(name)
        document = await stories.document_of(self._database, corpus, key)
        if document is None:
            raise DocumentNotFound(f"there has never been a document {key!r} in {name!r}")
        versions = await stories.versions(self._database, corpus, document)
        ids = list(dict.fromkeys(chunk_id for version in reversed(versions) for chunk_id in version.chunk_ids))
        mentions, erasures = await asyncio.gather(
            stories.mentions(self._database, corpus, ids[: stories.CHUNKS_MAX]),
            stories.erasures(self._database, corpus, [document]),
        )
        log = await stories.commits(self._database, corpus, _epochs(versions, erasures))
        events = [*_changes(versions, log), *_mentioned(mentions), *_erased(erasures, log, document_key=key)]
        complete = (
            len(versions) < stories.VERSIONS_MAX
            and len(mentions) < stories.MENTIONS_MAX
            and len(ids) <= stories.CHUNKS_MAX
        )
        return _story("document", key, _state_of_document(versions[-1]), head, events, complete)

    async def answer(self, name: str, key: str) -> wire.Story:
        """A recorded answer's, and that of what it rests on. Raises ``AnswerNotFound``."""
        corpus, head = await self._moment(name)
        answer = (await answers.by_keys(self._database, corpus, [key])).get(key)
        if answer is None:
            raise AnswerNotFound(f"there is no recorded answer {key!r}; it was not recorded, or too long ago")
        ids = [chunk.chunk_id for chunk in answer.chunks if chunk.chunk_id is not None]
        records = (await chunks.records(self._database, corpus, ids)).by_id
        epochs = [epoch for one in records.values() for epoch in (one.born_epoch, one.died_epoch) if epoch is not None]
        log = await stories.commits(self._database, corpus, epochs)
        events = [*_answered(answer), *_sources(answer, records, log)]
        return _story("answer", key, _state_of_answer(answer, records), head, events, complete=True)

    async def _moment(self, name: str) -> tuple[CorpusId, Epoch]:
        view, head = await self._views.fresh(name)
        return view.info.corpus_id, head.epoch


def _story(
    subject: wire.Subject, name: str, state: str, head: Epoch, events: Iterable[wire.StoryEvent], complete: bool
) -> wire.Story:
    # What the log has no time for stands before what has one; sorting keeps the order of the rest.
    told = sorted(
        (event for event in events if event.epoch <= head),
        key=lambda event: (event.epoch, _ORDER.index(event.event), event.at is not None, event.at),
    )
    return wire.Story(subject=subject, name=name, state=state, head=head, events=told, complete=complete)


def _committed(commit: Commit | None, epoch: Epoch) -> dict[str, Any]:
    """What an event has from the commit that made it."""
    if commit is None:
        return {"epoch": epoch, "at": None}
    return {"epoch": epoch, "at": commit.at, "actor": commit.actor, "reason": commit.reason}


def _epochs(versions: Sequence[Version], erasures: Sequence[Erased]) -> set[Epoch]:
    ends = {version.died_epoch for version in versions} - {None}
    return {*(version.born_epoch for version in versions), *(end for end in ends if end), *(e.epoch for e in erasures)}


# ── chunks ──────────────────────────────────────────────────────────────────────────────────────────────────


def _life(piece: Piece, versions: Sequence[Version], erasures: Sequence[Erased], log: Mapping[Epoch, Commit]) -> Events:
    """From birth through the versions that hold the chunk to its death."""
    holding = [version for version in versions if piece.chunk_id in version.chunk_ids]
    for before, version in pairwise([None, *holding]):
        assert version is not None
        born = version.born_epoch == piece.born_epoch
        renamed = before is not None and before.key != version.key
        yield wire.StoryEvent(
            **_committed(log.get(version.born_epoch), version.born_epoch),
            event="born" if born else "renamed" if renamed else "version",
            detail=f"born with {_named(version)}"
            if born
            else f"kept in {_named(version)}{_differences(before, version)}",
            chunk_id=str(piece.chunk_id),
            document_key=version.key,
            version=version.version,
        )
    if piece.died_epoch is not None:
        heir = next((version for version in versions if version.born_epoch == piece.died_epoch), None)
        erased = piece.died_epoch in {erased.epoch for erased in erasures}
        # Of what was erased later the cause is the erasure; how it died before can still be seen.
        how = f"superseded by {_named(heir)}" if heir else f"{'erased' if erased else 'deleted'} with its document"
        last = holding[-1] if holding else None
        yield wire.StoryEvent(
            **_committed(log.get(piece.died_epoch), piece.died_epoch),
            event="died",
            detail=how,
            chunk_id=str(piece.chunk_id),
            document_key=last.key if last else None,
            version=last.version if last else None,
        )


def _indexed(piece: Piece, applied: Sequence[Applied]) -> Events:
    for one in applied:
        if one.applied >= piece.born_epoch:
            marked = piece.died_epoch is not None and one.applied >= piece.died_epoch
            fate = "as dead, or removed since" if marked else "as alive"
            yield wire.StoryEvent(
                epoch=piece.born_epoch,
                at=None,
                event="indexed",
                detail=f"in generation {one.generation} ({one.state}), {fate}: it holds all up to epoch {one.applied}",
                chunk_id=str(piece.chunk_id),
            )


def _mentioned(mentions: Sequence[Mention]) -> Events:
    for mention in mentions:
        common: dict[str, Any] = {"answer_id": mention.answer_key, "chunk_id": str(mention.chunk_id)}
        if mention.ref is not None:
            detail = f"hit {mention.ref} of a retrieval for answer {mention.answer_key}"
            yield wire.StoryEvent(epoch=mention.snapshot_epoch, at=None, event="retrieved", detail=detail, **common)
        if mention.status is not None:
            detail = f"cited by answer {mention.answer_key}: {mention.status}; verdict {mention.verdict}"
            yield wire.StoryEvent(
                epoch=mention.epoch, at=mention.validated_at, event="validated", detail=detail, **common
            )
        if mention.cited_epoch is not None:
            detail = f"cited by what could go out of answer {mention.answer_key}"
            yield wire.StoryEvent(epoch=mention.cited_epoch, at=None, event="delivered", detail=detail, **common)


def _erased(erasures: Sequence[Erased], log: Mapping[Epoch, Commit], **about: str) -> Events:
    for erased in erasures:
        state = "complete" if erased.completed_at is not None else "pending"
        yield wire.StoryEvent(
            **_committed(log.get(erased.epoch), erased.epoch),
            event="erased",
            detail=f"erased by erasure {erased.erasure_id} ({state})",
            **about,
        )


def _state_of_piece(piece: Piece) -> str:
    return "alive" if piece.died_epoch is None else f"dead since epoch {piece.died_epoch}: {piece.cause}"


# ── documents ───────────────────────────────────────────────────────────────────────────────────────────────


def _changes(versions: Sequence[Version], log: Mapping[Epoch, Commit]) -> Events:
    for before, version in pairwise([None, *versions]):
        assert version is not None
        # A document that comes back after its deletion begins anew.
        lived_on = before is not None and before.died_epoch == version.born_epoch
        renamed = before is not None and before.key != version.key
        yield wire.StoryEvent(
            **_committed(log.get(version.born_epoch), version.born_epoch),
            event="renamed" if lived_on and renamed else "version" if lived_on else "born",
            detail=f"{_named(version)}: {_counted(before if lived_on else None, version)}"
            f"{_differences(before if lived_on else None, version)}",
            document_key=version.key,
            version=version.version,
        )
        if version.died_epoch is not None and version.cause != Cause.SUPERSEDED:
            yield wire.StoryEvent(
                **_committed(log.get(version.died_epoch), version.died_epoch),
                event="died",
                detail=f"{_named(version)} {version.cause}",
                document_key=version.key,
                version=version.version,
            )


def _named(version: Version) -> str:
    return f"version {version.version} of {version.key}"


def _counted(before: Version | None, version: Version) -> str:
    old, new = set(before.chunk_ids if before else ()), set(version.chunk_ids)
    counts = {"new": len(new - old), "kept": len(new & old), "gone": len(old - new)}
    return _chunks(len(new)) if before is None else ", ".join(f"{count} {what}" for what, count in counts.items())


def _chunks(count: int) -> str:
    return "1 chunk" if count == 1 else f"{count} chunks"


def _differences(before: Version | None, version: Version) -> str:
    """What else changed, as an afterthought."""
    if before is None:
        return ""
    said = []
    if before.key != version.key:
        said.append(f"renamed from {before.key}")
    said += [
        f"another {what}"
        for what, old, new in (
            ("title", before.title, version.title),
            ("URI", before.uri, version.uri),
            ("metadata", before.metadata, version.metadata),
            ("access list", before.acl, version.acl),
        )
        if old != new
    ]
    return f" ({', '.join(said)})" if said else ""


def _state_of_document(last: Version) -> str:
    alive = last.died_epoch is None
    return f"alive: {_named(last)}" if alive else f"dead since epoch {last.died_epoch}: {last.cause}"


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────


def _answered(answer: RecordedAnswer) -> Events:
    hits = sum(chunk.ref is not None and chunk.chunk_id is not None for chunk in answer.chunks)
    yield wire.StoryEvent(
        epoch=answer.snapshot_epoch, at=None, event="retrieved", detail=f"what it rests on: {_chunks(hits)}"
    )
    statuses = ", ".join(chunk.status.value for chunk in answer.chunks if chunk.status is not None)
    yield wire.StoryEvent(
        epoch=answer.epoch,
        at=answer.validated_at,
        event="validated",
        detail=f"verdict {answer.verdict} (policy {answer.policy}, scope {answer.scope}), the newest of "
        f"{answer.validations} since {answer.recorded_at:%Y-%m-%d %H:%M:%S}; citations: {statuses or 'none'}",
    )
    if answer.delivered_epoch is not None:
        yield wire.StoryEvent(
            epoch=answer.delivered_epoch, at=answer.delivered_at, event="delivered", detail="text could go out"
        )


def _sources(answer: RecordedAnswer, records: Mapping[ChunkId, ChunkRecord], log: Mapping[Epoch, Commit]) -> Events:
    """Birth and death of what is cited."""
    for chunk in answer.chunks:
        record = None if chunk.chunk_id is None or chunk.status is None else records.get(chunk.chunk_id)
        if record is None:
            continue
        name = f"[{chunk.ref if chunk.ref is not None else record.chunk_id}]"
        about: dict[str, Any] = {"chunk_id": str(record.chunk_id), "document_key": record.key}
        yield wire.StoryEvent(
            **_committed(log.get(record.born_epoch), record.born_epoch),
            event="born",
            detail=f"{name} born in {record.key}",
            **about,
        )
        if record.died_epoch is not None:
            late = chunk.cited_epoch is not None and record.died_epoch > chunk.cited_epoch
            heir = f" by version {record.document_version}" if record.cause is Cause.SUPERSEDED else ""
            yield wire.StoryEvent(
                **_committed(log.get(record.died_epoch), record.died_epoch),
                event="died",
                detail=f"{name} {record.cause}{heir}{': recalled, for it had gone out' if late else ''}",
                version=record.version,
                **about,
            )


def _state_of_answer(answer: RecordedAnswer, records: Mapping[ChunkId, ChunkRecord]) -> str:
    if answer.delivered_epoch is None:
        return "never delivered"
    cited = [chunk.chunk_id for chunk in answer.chunks if chunk.cited_epoch is not None]
    known = [records[chunk_id] for chunk_id in cited if chunk_id is not None and chunk_id in records]
    lost = sum(record.died_epoch is not None for record in known)
    return f"delivered; citations: {len(cited)}, dead by now: {lost}"
