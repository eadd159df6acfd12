"""The gc command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ragver.cli import options
from ragver.cli.connection import Connection, Place, run
from ragver.cli.output import Column, show_json, show_rows

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


def gc(
    corpus: options.Corpus = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """Remove what no epoch within the retention can see. A server does this by itself now and then."""

    async def collected(connection: Connection) -> list[wire.GcResult]:
        names = [corpus] if corpus is not None else [found.name for found in await connection.client.corpora()]
        return [await connection.client.collect(name) for name in names]

    results = run(Place(url, data_dir, "gc"), collected)
    if as_json:
        show_json({"collected": results})
    else:
        show_rows(COLUMNS, map(_row, results))


def _row(result: wire.GcResult) -> tuple[object, ...]:
    horizons = result.horizon_before, result.horizon
    return result.corpus, result.head, *horizons, result.chunks, result.answers, result.pins
