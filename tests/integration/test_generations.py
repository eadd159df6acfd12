"""An index generation is built beside the serving one, checked, cut over to, gone back from, and dropped."""

from __future__ import annotations

from ragver.bootstrap import Services
from tests.support.generations import begin, built, cut_over, migrated
from tests.support.ledger import check_index, query
from tests.support.services import CORPUS, caught_up, commit, delete, make_corpus, put, set_acl
from tests.support.spine import retrieve, texts


async def test_a_corpus_goes_to_another_embedding_and_back(services: Services) -> None:
    """Every epoch can be read before, after, and after going back; commits meanwhile are in both generations."""
    await make_corpus(services)
    first = await commit(services, CORPUS, put("a", "the old page about ducks"), put("b", "geese"))
    await commit(services, CORPUS, delete("a"), set_acl("b", "g:birds"))
    before = await retrieve(services, query="ducks", epoch=first.epoch)

    generation = await begin(services)
    await commit(services, CORPUS, put("c", "swans while it is built"))
    ready = await built(services, generation)
    assert (3, 3, None) == (ready.chunks, ready.embedded, ready.problem)
    done = await cut_over(services, generation)

    assert 128 == (await services.catalog.corpus(CORPUS)).embedding.dimensions
    assert await check_index(services, CORPUS) == 3
    assert texts(before) == texts(await retrieve(services, query="ducks", snapshot=before.snapshot))
    await commit(services, CORPUS, put("d", "herons after it"))
    await caught_up(services)
    await built(services, done.former)
    assert "herons after it" in texts(await retrieve(services, query="herons"))

    await cut_over(services, done.former)
    assert await check_index(services, CORPUS) == 4
    assert "herons after it" in texts(await retrieve(services, query="herons"))
    assert texts(before) == texts(await retrieve(services, query="ducks", snapshot=before.snapshot))


async def test_a_rebuild_copies_the_vectors_also_of_clients(services: Services) -> None:
    """No model is asked: the ledger has every vector, those included that only clients can make."""
    await make_corpus(services, embedding={"provider": "external", "dimensions": 2})
    await commit(services, CORPUS, put("a", chunks=[{"text": "one", "vector": [0.6, 0.8]}]))
    await migrated(services, None)

    vectors = await query(services.database.url, "SELECT vector FROM embedding ORDER BY generation_id")
    assert 2 == len(vectors)
    assert vectors[0] == vectors[1]
    assert await check_index(services, CORPUS) == 1
