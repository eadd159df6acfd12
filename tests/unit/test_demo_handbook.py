"""The sample handbook: its history can be replayed, its pages read well, its scenes show what they claim."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib import resources
from itertools import pairwise
from posixpath import dirname, join, normpath

import numpy as np
import pytest

from ragver import wire
from ragver.demo import handbook
from ragver.demo.handbook import SCENES, Answer, DemoCommit, Pages, Scene, Source
from ragver.embedding.hashing import HashingEmbedder
from ragver.splitting import split, title_of
from ragver.types import WILDCARD

HISTORY = handbook.commits()
HITS = 5
"""How deep the demo looks."""


def after(history: Sequence[DemoCommit]) -> Pages:
    pages: Pages = {}
    for commit in history:
        handbook.replay(commit.operations, pages)
    return pages


def states() -> Iterable[tuple[Pages, DemoCommit, Pages]]:
    """Each commit between the pages before and after it."""
    for epoch, commit in enumerate(HISTORY):
        yield after(HISTORY[:epoch]), commit, after(HISTORY[: epoch + 1])


def around(scene: Scene) -> tuple[Pages, Pages]:
    """What the first answer was written from, and what the second one is."""
    pages = after(HISTORY)
    if scene.as_of is not None:
        return after(HISTORY[: handbook.epoch_at(HISTORY, scene.as_of)]), pages
    for earlier in SCENES[: SCENES.index(scene)]:
        handbook.replay(earlier.live.ops if earlier.live else [], pages)
    changed = dict(pages)
    handbook.replay(scene.live.ops if scene.live else [], changed)
    return pages, changed


def text_of(page: wire.Put) -> str:
    assert page.text is not None
    return page.text


def readable(pages: Pages, scene: Scene) -> Pages:
    labels = {WILDCARD, *scene.principals}
    return {key: page for key, page in pages.items() if labels & set(page.acl)}


def supported(source: Source, pages: Pages) -> bool:
    """Whether one chunk of the page holds the passage, so that one citation can stand for it."""
    return source.key in pages and any(source.passage in chunk for chunk in split(text_of(pages[source.key])))


def broken(answer: Answer, pages: Pages) -> set[str]:
    return {name for name, source in answer.sources.items() if not supported(source, pages)}


async def ranked(question: str, pages: Pages) -> list[wire.Hit]:
    """All chunks of the pages as a retrieval with the embedded default would rank them."""
    chunks = [(page, chunk) for page in pages.values() for chunk in split(text_of(page))]
    embedder = HashingEmbedder()
    matrix = await embedder.embed_documents([chunk for _, chunk in chunks])
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    scores = matrix @ await embedder.embed_query(question)
    order = np.argsort(-scores)
    return [_hit(ref, float(scores[place]), *chunks[place]) for ref, place in enumerate(order, start=1)]


def _hit(ref: int, score: float, page: wire.Put, chunk: str) -> wire.Hit:
    document = wire.HitDocument(key=page.key, version=1, title=page.title, uri=None, metadata=page.metadata)
    return wire.Hit(ref=ref, chunk_id=str(1_000 + ref), score=score, text=chunk, document=document, born_epoch=1)


# ── the history ─────────────────────────────────────────────────────────────────────────────────────────────


def test_commits_go_forward_in_time_over_about_two_years() -> None:
    assert all(earlier.time < later.time for earlier, later in pairwise(HISTORY))
    assert 600 <= (HISTORY[-1].time - HISTORY[0].time).days <= 800
    assert 28 <= len(HISTORY) <= 35


def test_every_commit_has_an_actor_a_reason_and_something_to_do() -> None:
    assert all(commit.actor and commit.reason and commit.operations for commit in HISTORY)


def test_every_operation_fits_the_pages_before_its_commit() -> None:
    """Only living pages are changed, and none is renamed onto another."""
    for before, commit, _ in states():
        for operation in commit.operations:
            assert isinstance(operation, wire.Put) or operation.key in before
            assert not isinstance(operation, wire.Rename) or operation.new_key not in before


def test_every_operation_changes_something() -> None:
    """A put has a new text; labels and metadata that are set differ from those before."""
    for before, commit, _ in states():
        for operation in commit.operations:
            page = before.get(operation.key)
            match operation:
                case wire.Put():
                    assert page is None or page.text != operation.text
                case wire.SetAcl():
                    assert page is not None
                    assert page.acl != operation.acl
                case wire.SetMetadata():
                    assert page is not None
                    assert page.metadata != operation.metadata


def test_an_edit_keeps_who_may_read_the_page_and_which_team_keeps_it() -> None:
    for before, commit, _ in states():
        for operation in commit.operations:
            if isinstance(operation, wire.Put) and operation.key in before:
                old = before[operation.key]
                assert (old.acl, old.metadata["team"]) == (operation.acl, operation.metadata["team"])


def test_all_kinds_of_operations_occur() -> None:
    kinds = {operation.op for commit in HISTORY for operation in commit.operations}
    assert {"put", "delete", "rename", "set_acl", "set_metadata"} == kinds


def test_every_page_file_is_part_of_the_history() -> None:
    root = resources.files("ragver.demo") / "handbook" / "pages"
    files = {f"{folder.name}/{file.name}" for folder in root.iterdir() for file in folder.iterdir()}
    added = {op.key for before, commit, _ in states() for op in commit.operations if _adds(op, before)}
    assert files == added


def _adds(operation: wire.Operation, before: Pages) -> bool:
    return isinstance(operation, wire.Put) and operation.key not in before


@pytest.mark.parametrize(("old", "times"), [("ferry", 0), ("leave", 2)])
def test_a_replacement_that_is_not_unique_is_refused(old: str, times: int) -> None:
    with pytest.raises(ValueError, match=f"occurs {times} times"):
        handbook._replaced("leave and sick leave", old, "")


def test_epoch_at_counts_the_commits_up_to_and_including_a_time() -> None:
    assert 2 == handbook.epoch_at(HISTORY, HISTORY[1].time)
    assert len(HISTORY) == handbook.epoch_at(HISTORY, HISTORY[-1].time)


# ── the pages ───────────────────────────────────────────────────────────────────────────────────────────────


def test_some_thirty_pages_are_alive_at_the_end() -> None:
    assert 25 <= len(after(HISTORY)) <= 32


def test_every_page_is_a_short_read_in_every_version() -> None:
    for _, commit, pages in states():
        lengths = {key: len(text_of(page).split()) for key, page in pages.items()}
        assert {} == {key: words for key, words in lengths.items() if not 150 <= words <= 400}, commit.reason


def test_every_page_has_its_heading_as_title_and_sections() -> None:
    for page in after(HISTORY).values():
        assert page.title == title_of(text_of(page))
        assert text_of(page).count("\n## ") >= 2


def test_every_link_leads_to_a_living_page_at_every_epoch() -> None:
    for _, commit, pages in states():
        for page in pages.values():
            for target in re.findall(r"\]\(([^)]+)\)", text_of(page)):
                assert normpath(join(dirname(page.key), target)) in pages, (commit.reason, page.key, target)


def test_every_page_has_the_metadata_that_filters_may_name() -> None:
    for page in after(HISTORY).values():
        assert set(handbook.FILTERABLE) == set(page.metadata)
        assert page.metadata["year"] in (2024, 2025)


def test_some_pages_are_for_some_readers_only() -> None:
    assert {"*", "group:staff", "group:managers", "group:people-ops"} == {
        label for page in after(HISTORY).values() for label in page.acl
    }


# ── the scenes ──────────────────────────────────────────────────────────────────────────────────────────────

each_scene = pytest.mark.parametrize("scene", SCENES, ids=[scene.name for scene in SCENES])


def test_the_scenes_are_those_of_the_story() -> None:
    assert ["deletion", "edit", "permission", "time travel"] == [scene.name for scene in SCENES]


@each_scene
def test_markers_and_sources_of_an_answer_are_the_same(scene: Scene) -> None:
    for answer in (scene.answer, scene.afterwards):
        assert set(re.findall(r"\[(\w+)\]", answer.template)) == set(answer.sources)


@each_scene
def test_each_answer_is_right_in_its_own_time(scene: Scene) -> None:
    before, now = around(scene)
    assert set() == broken(scene.answer, readable(before, scene))
    assert set() == broken(scene.afterwards, readable(now, scene))


@pytest.mark.parametrize(
    ("name", "lost"),
    [("deletion", {"card"}), ("edit", {"weeks"}), ("permission", {"band"}), ("time travel", {"rate"})],
)
def test_the_first_answer_loses_this_source_and_no_other(name: str, lost: set[str]) -> None:
    scene = next(scene for scene in SCENES if scene.name == name)
    assert lost == broken(scene.answer, readable(around(scene)[1], scene))


def test_the_edit_keeps_the_chunk_with_the_notice() -> None:
    """So that one of the two citations of the same page stays live."""
    scene = SCENES[1]
    notice = scene.answer.sources["notice"]
    before, now = ({*split(text_of(pages[notice.key]))} for pages in around(scene))
    assert any(notice.passage in chunk for chunk in before & now)


def test_only_the_people_team_keeps_the_bands() -> None:
    bands = around(SCENES[2])[1]["people/compensation-bands.md"]
    assert ["group:people-ops"] == bands.acl


def test_the_allowance_was_edited_three_times_and_differs_each_time() -> None:
    key = "travel/daily-allowance.md"
    puts = [op for commit in HISTORY for op in commit.operations if isinstance(op, wire.Put) and op.key == key]
    rates = [re.findall(r"€\d+ for a full day", text_of(put)) for put in puts]
    assert [[f"€{rate} for a full day"] for rate in (32, 36, 40, 44)] == rates


@each_scene
async def test_the_right_page_is_found_first_by_its_words(scene: Scene) -> None:
    first = await ranked(scene.question, readable(around(scene)[0], scene))
    assert next(iter(scene.answer.sources.values())).key == first[0].document.key


@each_scene
async def test_all_sources_are_among_the_first_hits_before_and_after(scene: Scene) -> None:
    for answer, pages in zip((scene.answer, scene.afterwards), around(scene), strict=True):
        hits = (await ranked(scene.question, readable(pages, scene)))[:HITS]
        cited = {int(ref) for ref in re.findall(r"\[(\d+)\]", answer.cite(hits))}
        assert len(answer.sources) == len(cited)


async def test_an_answer_cannot_cite_what_was_not_found() -> None:
    scene = SCENES[0]
    hits = await ranked(scene.question, around(scene)[1])
    with pytest.raises(LookupError, match=re.escape("travel/company-card.md")):
        scene.answer.cite(hits)
