"""The gc command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ragver.cli import options
from ragver.cli.connection import Connection, Place, run
from ragver.cli.output import Column, on_terminal, show_json, show_line, show_rows

if TYPE_CHECKING:
    from ragver import wire

COLUMNS = [
    Column("corpus", narrow="wrap"),
    Column("head", "right"),
    Column("horizon before", "right"),
    Column("horizon", "right"),
    Column("chunks removed", "right"),
    Column("answers removed", "right"),
    Column("pins", "right"),
]
STEPS = [Column("step", narrow="wrap"), Column("seconds", "right"), Column("state"), Column("", narrow="wrap")]


def gc(
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Also rewrite the stores' files without what was removed; everybody waits meanwhile."
        ),
    ] = False,
    corpus: options.Corpus = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """Remove what no epoch within the retention can see. A server does this by itself now and then.

    With --full, exit status 1 if a step was left to somebody with more rights.
    """

    async def collected(connection: Connection) -> list[wire.GcResult]:
        names = [corpus] if corpus is not None else [found.name for found in await connection.client.corpora()]
        return [await connection.client.collect(name, full=full) for name in names]

    results = run(Place(url, data_dir, "gc"), collected)
    if as_json:
        show_json({"collected": results})
    else:
        show_rows(COLUMNS, map(_row, results))
        for result in results:
            _show_full(result)
    if not all(step.done for result in results for step in result.full):
        raise typer.Exit(1)


def _show_full(result: wire.GcResult) -> None:
    if not result.full:
        return
    if on_terminal():
        show_line(f"\n{result.corpus}: the ledger's tables had {result.ledger_bytes_before:,} bytes,")
        show_line(f"and have {result.ledger_bytes:,} now.")
    show_rows(STEPS, map(_step, result.full))


def _step(step: wire.GcStep) -> tuple[object, ...]:
    return step.step, f"{step.seconds:.1f}", "done" if step.done else "not done", step.detail


def _row(result: wire.GcResult) -> tuple[object, ...]:
    horizons = result.horizon_before, result.horizon
    return result.corpus, result.head, *horizons, result.chunks, result.answers, result.pins
