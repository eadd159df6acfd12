"""The reconcile command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragver.cli import options
from ragver.cli.connection import Connection, Place, run
from ragver.cli.output import Column, complain, on_terminal, show_fields, show_json, show_line, show_rows
from ragver.types import RunState

if TYPE_CHECKING:
    from ragver import wire

FINDINGS_SHOWN_MAX = 20
REPORT_RUNS = 365
"""How many runs a report looks back on."""

KINDS = [Column("kind"), Column("found", "right"), Column("repaired", "right")]
FINDINGS = [Column("finding"), Column("chunk"), Column("document", narrow="cut"), Column("evidence", narrow="wrap")]

Ratio = Annotated[
    float | None,
    typer.Option(
        "--max-drift-ratio",
        metavar="SHARE",
        min=0.0,
        max=1.0,
        help="If a greater share of the points differs, nothing is repaired; 0.1 if not given.",
        show_default=False,
    ),
]


def reconcile(
    corpus: options.Corpus = None,
    repair: Annotated[bool, typer.Option("--repair", help="Put right what differs; else it is only told.")] = False,
    max_drift_ratio: Ratio = None,
    verify_vectors: Annotated[
        bool, typer.Option("--verify-vectors", help="Compare every vector, and search for every point, not a sample.")
    ] = False,
    rate: Annotated[
        int | None,
        typer.Option("--rate", metavar="N", min=1, help="Compare no more points a second.", show_default=False),
    ] = None,
    nightly: Annotated[
        str | None,
        typer.Option(
            "--nightly",
            metavar="HH:MM",
            help="Go on for ever, once a day at this time (UTC, the ledger's clock); one that was missed is made up "
            "for. All corpora, if none is named.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Write a page about this and earlier runs.", show_default=False),
    ] = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """Hold the index against the ledger, point by point.

    Exit status 1: drift was found and is still there. 2: it could not be done.
    """
    from ragver import wire

    request = wire.ReconciliationRequest(
        repair=repair,
        verify_vectors=verify_vectors,
        points_per_s=rate,
        **({} if max_drift_ratio is None else {"max_drift_ratio": max_drift_ratio}),
    )
    place = Place(url, data_dir, "reconcile")
    if nightly is not None:
        from ragver.cli.nightly import reconcile_nightly

        reconcile_nightly(place, nightly, corpus, request)
        return

    async def reconciled(connection: Connection) -> tuple[str, wire.Reconciliation, wire.ReconciliationList]:
        from ragver.cli.reconciling import to_its_end

        name = await connection.corpus(corpus)
        done = await to_its_end(connection.client, name, request)
        return name, done, await connection.client.reconciliations(name, limit=REPORT_RUNS if report else 1)

    name, done, before = run(place, reconciled)
    if report is not None:
        from ragver.cli.drift_report import page

        report.write_text(page(name, done, before.reconciliations), encoding="utf-8")
    if as_json:
        show_json(done)
    else:
        _show(done)
    if done.state is RunState.FAILED:
        complain(done.detail or "it failed")
        raise typer.Exit(2)
    if done.state is RunState.STOPPED or done.counts != done.repaired:
        raise typer.Exit(1)


def _show(done: wire.Reconciliation) -> None:
    seconds = None if done.finished_at is None else (done.finished_at - done.started_at).total_seconds()
    show_fields(
        {
            "reconciliation": done.id,
            "state": done.state,
            "epoch": done.epoch,
            "history": done.history,
            "points": f"{done.points:,}" + (f", {done.in_flight:,} of them in flight" if done.in_flight else ""),
            "seconds": "" if seconds is None else f"{seconds:.1f}",
            "drift": f"{done.drift:,} ({done.drift_ratio:.2%} of the points)" if done.drift else "none",
        }
    )
    found = [(kind, count, done.repaired[kind]) for kind, count in done.counts.items() if count]
    if found:
        _space()
        show_rows(KINDS, found)
        _space()
        show_rows(FINDINGS, map(_row, done.findings[:FINDINGS_SHOWN_MAX]))
        more = done.drift - min(len(done.findings), FINDINGS_SHOWN_MAX)
        if more and on_terminal():
            show_line(f"and {more:,} more; --json shows {len(done.findings):,}, --report all kinds over time")
    if done.detail and done.state is not RunState.FAILED:
        _space()
        show_line(done.detail)


def _row(finding: wire.Finding) -> tuple[object, ...]:
    from ragver.cli.drift_report import in_words

    return finding.kind, finding.chunk_id, finding.document_key, in_words(finding.evidence)


def _space() -> None:
    if on_terminal():
        show_line("")
