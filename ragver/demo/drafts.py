"""What stands in for a language model, and a judge of what it wrote who asks neither pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragver import wire
from ragver.client import ApiError, AsyncClient
from ragver.demo.handbook import Answer, Scene, Source
from ragver.types import WILDCARD


@dataclass(frozen=True, slots=True)
class Draft:
    """Generated text, its markers pointing at hits, and the answer it was made from."""

    text: str
    answer: Answer


def written(scene: Scene, hits: Sequence[wire.Hit]) -> Draft:
    """What a model writes that goes by the passages it is given: of the two answers written beforehand, the one
    whose sources are all among them."""
    for answer in (scene.answer, scene.afterwards):
        try:
            return Draft(answer.cite(hits), answer)
        except LookupError:
            continue
    raise LookupError(f"scene {scene.name!r}: the hits bear out neither of its answers")


async def objections(
    client: AsyncClient, corpus: str, draft: Draft, principals: Sequence[str], epoch: int
) -> list[str]:
    """What is wrong with the draft at an epoch, found by reading the pages that it leans on."""
    labels = {WILDCARD, *principals}
    found = [await _objection(client, corpus, source, labels, epoch) for source in draft.answer.sources.values()]
    return list(dict.fromkeys(objection for objection in found if objection is not None))


async def _objection(client: AsyncClient, corpus: str, source: Source, labels: set[str], epoch: int) -> str | None:
    try:
        page = await client.document(corpus, source.key, at_epoch=epoch)
    except ApiError as error:
        if error.code != "document_not_found":
            raise
        return f"there is no {source.key} at epoch {epoch}"
    if labels.isdisjoint(page.acl):
        return f"{source.key} is closed to this reader at epoch {epoch}"
    if source.passage not in page.text:
        return f"{source.key} says otherwise at epoch {epoch}"
    return None
