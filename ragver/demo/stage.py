"""How the demo looks: side by side on a terminal, one after another and without a trace of colour elsewhere."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ragver import wire

WIDTH_MAX: Final = 120
WRITING_S: Final = 3.0
"""How long the model takes to write an answer."""
PAUSE_S: Final = 1.5
"""Time to look at an outcome."""
INDENT: Final = 3
STYLES: Final = {
    "pass": "bold green",
    "flag": "bold yellow",
    "reject": "bold red",
    "live": "green",
    "superseded": "yellow",
    "deleted": "red",
    "forbidden": "red",
}

Column = tuple[str, Sequence[RenderableType]]
"""A title and what stands below it."""


class Stage:
    """Prints the demo. `fast` takes out the time that the model would need, and that to look."""

    def __init__(self, console: Console, *, fast: bool) -> None:
        self._console = console
        self._console.width = min(console.width, WIDTH_MAX)
        self._fast = fast
        self._terminal = console.is_terminal

    def heading(self, title: str) -> None:
        """Begin a part."""
        self.gap()
        self._print(Rule(Text(title, style="bold"), align="left", style="dim") if self._terminal else f"== {title}")
        self.gap()

    def say(self, text: str | Text) -> None:
        """Print a paragraph."""
        self._print(text)

    def gap(self) -> None:
        """Leave a line free."""
        self._console.print()

    def verbatim(self, lines: Sequence[str]) -> None:
        """Print lines to be copied: never wrapped, whatever the width."""
        for line in lines:
            self._console.print(Text(f"    {line}", style="cyan"), soft_wrap=True)

    def question(self, question: str, principals: Sequence[str]) -> None:
        """Print what is asked, and as whom."""
        who = f" (asked as {', '.join(principals)})" if principals else ""
        self.say(Text.assemble(("Q  ", "bold"), (question, "bold"), (who, "dim")))
        self.gap()

    def passages(self, title: str, rows: Sequence[tuple[int, str, str]]) -> None:
        """Print what retrieval found: ref, document and the words that matter, a line each."""
        self.say(Text(title, style="dim"))
        width = max(len(document) for _, document, _ in rows)
        for ref, document, words in rows:
            line = Text.assemble(f"[{ref}] ", (f"{document:<{width}}  ", "cyan"), words)
            line.truncate(self._console.width, overflow="ellipsis")
            self._print(line)
        self.gap()

    async def writing(self, draft: str, meanwhile: Callable[[], Awaitable[Text | None]]) -> None:
        """Have the model write, and something happen when it is half-way; that says what to print of it."""
        await (self._typed(draft, meanwhile) if self._terminal else self._told(draft, meanwhile))
        self.gap()

    async def _typed(self, draft: str, meanwhile: Callable[[], Awaitable[Text | None]]) -> None:
        words = re.findall(r"\S+\s*", draft)
        news: list[RenderableType] = []
        with Live(console=self._console, auto_refresh=False) as live:
            for place, _ in enumerate(words, 1):
                shown = _indented(Text("".join(words[:place]), style="italic"))
                live.update(Group(Text("The model writes:", style="dim"), shown, *news), refresh=True)
                await self._wait(WRITING_S / len(words))
                if place == len(words) // 2 and (said := await meanwhile()) is not None:
                    news = [Text(""), said]

    async def _told(self, draft: str, meanwhile: Callable[[], Awaitable[Text | None]]) -> None:
        self.say("The model begins to write.")
        await self._wait(WRITING_S / 2)
        if (said := await meanwhile()) is not None:
            self.say(said)
        await self._wait(WRITING_S / 2)
        self.say("The model has written:")
        self._print(_indented(Text(draft)))

    async def _wait(self, seconds: float) -> None:
        if not self._fast:
            await asyncio.sleep(seconds)

    async def side_by_side(self, left: Column, right: Column) -> None:
        """Print two columns, and leave some time to compare them."""
        if self._terminal:
            table = Table.grid(expand=True, padding=(0, 1, 0, 0))
            table.add_column(ratio=2, overflow="fold")
            table.add_column(ratio=3, overflow="fold")
            table.add_row(_panel(*left, style="yellow"), _panel(*right, style="blue"))
            self._print(table)
        else:
            for title, content in (left, right):
                self._print(f"-- {title}", _indented(Group(*content)), "")
        await self._wait(PAUSE_S)

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[], None]]:
        """A function to call after each step, for a bar that goes away at the end; no bar without a terminal."""
        columns = (TextColumn(title), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=self._console, transient=True, disable=not self._terminal) as progress:
            task = progress.add_task(title, total=total)
            yield lambda: progress.advance(task)

    def numbers(self, rows: Sequence[tuple[str, str]]) -> None:
        """Print figures with what they count."""
        table = Table.grid(padding=(0, 2))
        table.add_column(justify="right", style="bold", no_wrap=True)
        table.add_column()
        for figure, meaning in rows:
            table.add_row(Text(figure), Text(meaning))
        self._print(table)

    def _print(self, *content: RenderableType) -> None:
        group = Group(*(Text(one) if isinstance(one, str) else one for one in content))
        if self._terminal:
            self._console.print(group)
            return
        # Without the spaces that fill each line of a block.
        with self._console.capture() as printed:
            self._console.print(group)
        lines = [line.rstrip() for line in printed.get().splitlines()]
        self._console.print(Text("\n".join(lines)), soft_wrap=True)


def verdict_line(verdict: wire.ValidateResponse) -> Text:
    """The decision, and as of when."""
    return Text.assemble((verdict.verdict.value, STYLES[verdict.verdict.value]), f" at epoch {verdict.epoch}")


def citation_lines(verdict: wire.ValidateResponse) -> list[RenderableType]:
    """Each citation with its status and what the validator says about it."""
    lines: list[RenderableType] = []
    for one in verdict.citations:
        status = one.status.value
        key = f" {one.document_key}" if one.document_key else ""
        lines.append(Text.assemble(f"[{one.ref}] ", (status, STYLES.get(status, "red")), (key, "cyan")))
        if status != "live":
            lines.append(_indented(Text(one.detail, style="dim")))
    return lines or [Text("no citation to check", style="dim")]


def quoted(text: str) -> RenderableType:
    """Text that somebody would get to read."""
    return _indented(Text(f"“{text}”", style="italic"))


def _indented(content: RenderableType) -> Padding:
    return Padding(content, (0, 0, 0, INDENT), expand=False)


def _panel(title: str, content: Sequence[RenderableType], *, style: str) -> Panel:
    return Panel(Group(*content), title=Text(title, style="bold"), title_align="left", border_style=style)
