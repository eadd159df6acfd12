"""From the ledger to the index, which do not know each other: a generation's collection, a chunk's payload."""

from __future__ import annotations

from ragver.filters import projection
from ragver.index.port import Collection, Payload
from ragver.ledger.chunks import Change
from ragver.ledger.corpora import CorpusInfo, Generation
from ragver.ledger.generations import Standing


def collection_of(owner: CorpusInfo | Standing) -> Collection:
    """Where the points of a corpus's serving generation, or of the generation that stands so, are."""
    generation = owner.generation
    return Collection(generation.collection, generation.dimensions, generation.distance, owner.filterable)


def leftover_of(generation: Generation) -> Collection:
    """Where the points of a generation are that is gone; good for nothing but dropping it."""
    return Collection(generation.collection, generation.dimensions, generation.distance)


def payload_of(collection: Collection, change: Change) -> Payload:
    """What the index has to hold of a chunk beside its vector."""
    return Payload(
        document_id=change.document_id,
        born_epoch=change.born_epoch,
        died_epoch=change.died_epoch,
        touched_epoch=change.touched_epoch,
        acl=change.acl,
        metadata=projection(change.metadata, collection.filterable),
    )
