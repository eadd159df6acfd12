"""The page about reconciliations: everything is in it, and nothing of it is believed to be HTML."""

from __future__ import annotations

from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

from ragver import wire
from ragver.cli.drift_report import page
from ragver.types import DriftKind, RunState
from tests.unit.test_nightly import a_run, on

VOID = {"meta"}


class Page(HTMLParser):
    """Checks that every element ends, and collects."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.bars: list[float] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.links += [str(found[name]) for name in ("src", "href") if name in found]
        if tag == "rect":
            self.bars.append(float(found["height"] or 0))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.pop()

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def with_drift(day: int, **counts: int) -> wire.Reconciliation:
    told: dict[str, Any] = {kind: counts.get(kind, 0) for kind in DriftKind}
    return a_run(counts=told, drift=sum(counts.values()), started_at=on(1, 3) + timedelta(days=day), id=str(day))


def test_a_bar_for_each_run_is_as_high_as_what_it_found() -> None:
    runs = [with_drift(1, missing=2), with_drift(2), with_drift(3, zombie=4, buried=4)]

    found = Page(page("handbook", runs[-1], runs[::-1]))

    assert [] == found.open
    assert [] == found.links
    assert len(found.bars) == 3
    assert found.bars[1] == found.bars[2] == 2 * found.bars[0]
    text = " ".join(found.words)
    assert "4 zombie, 4 buried" in text
    assert "no drift" in text


def test_nothing_that_a_document_is_called_becomes_markup() -> None:
    finding = wire.Finding(
        kind=DriftKind.ORPHAN,
        chunk_id="7",
        document_key="<script>x</script>",
        evidence={"what": "<b>"},
        repaired=False,
    )
    run = a_run(detail="<i>", findings=[finding], drift=1)

    text = page("<corpus>", run, [run])

    assert all(f"<{word}" not in text for word in ("script", "b>", "i>", "corpus"))
    assert "&lt;script&gt;x&lt;/script&gt;" in text


def test_no_runs_and_a_year_of_them_are_a_page_as_well() -> None:
    failed = a_run(RunState.FAILED)
    many = [with_drift(day, missing=day) for day in range(365)]

    assert [] == Page(page("handbook", failed, [failed])).bars
    assert 364 == len(Page(page("handbook", many[-1], many)).bars)
