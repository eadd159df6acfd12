"""From a generation in the ledger to its collection in the index: the two stores do not know each other."""

from __future__ import annotations

from ragver.index.port import Collection
from ragver.ledger.corpora import CorpusInfo, Generation
from ragver.ledger.generations import Standing


def collection_of(owner: CorpusInfo | Standing) -> Collection:
    """Where the points of a corpus's serving generation, or of the generation that stands so, are."""
    generation = owner.generation
    return Collection(generation.collection, generation.dimensions, generation.distance, owner.filterable)


def leftover_of(generation: Generation) -> Collection:
    """Where the points of a generation are that is gone; good for nothing but dropping it."""
    return Collection(generation.collection, generation.dimensions, generation.distance)
