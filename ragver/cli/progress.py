"""Shows how far something is: a bar on a terminal, a line every few seconds elsewhere. Both go to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, ParamSpec, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ragver.cli.replaying import Tally

P = ParamSpec("P")
State = TypeVar("State")

LINE_EVERY_S = 5.0
BAR_EVERY_S = 0.1


class Look(NamedTuple):
    """How far work on the server is."""

    stage: str
    done: int | None
    """None where that stage is not counted."""
    total: int | None
    beside: str
    """What is said beside the bar; may be empty."""


@contextmanager
def watched(look: Callable[[State], Look], line: Callable[[State], str]) -> Iterator[Callable[[State], None]]:
    """A function to call with each state that the server tells of its work; it shows the state when it is time to."""
    if not sys.stderr.isatty():
        yield every(LINE_EVERY_S, lambda state: print(line(state), file=sys.stderr, flush=True))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[beside]}", style="yellow"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None, beside="")

        def show(state: State) -> None:
            stage, done, total, beside = look(state)
            progress.update(task, description=stage, completed=done, total=total, beside=beside)

        yield show


@contextmanager
def shown(tally: Tally, total: int | None) -> Iterator[Callable[[], None]]:
    """A function to call after each commit; it shows the tally when it is time to."""
    if sys.stderr.isatty():
        with _bar(tally, total) as progressed:
            yield progressed
    else:
        yield every(LINE_EVERY_S, lambda: print(_line(tally, total), file=sys.stderr, flush=True))


@contextmanager
def _bar(tally: Tally, total: int | None) -> Iterator[Callable[[], None]]:
    columns = (
        TextColumn("commits"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True) as progress:
        task = progress.add_task("commits", total=total, rate="")

        def show() -> None:
            progress.update(task, completed=tally.done, rate=f"{_rate(tally):,.0f}/s")
            progress.refresh()

        yield every(BAR_EVERY_S, show)


def every(seconds: float, show: Callable[P, None]) -> Callable[P, None]:
    """`show` for whoever calls it all the time: what comes within so many seconds of the last time is passed over."""
    last = time.monotonic()

    def progressed(*arguments: P.args, **options: P.kwargs) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            show(*arguments, **options)

    return progressed


def _line(tally: Tally, total: int | None) -> str:
    whole = "" if total is None else f" of {total:,}"
    return f"{tally.done:,}{whole} commits, {_rate(tally):,.0f}/s, {tally.chunks_added:,} chunks added"


def _rate(tally: Tally) -> float:
    return tally.commits / tally.elapsed_s
