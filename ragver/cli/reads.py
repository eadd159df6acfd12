"""The commands in front of an answer: retrieve, validate."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragver.cli import options
from ragver.cli.connection import Connection, Place, run
from ragver.cli.output import Column, excerpt, on_terminal, show_fields, show_json, show_line, show_rows
from ragver.types import REF_MAX, Decision, Level, Policy, Scope

if TYPE_CHECKING:
    from ragver import wire


def retrieve(
    query: Annotated[str, typer.Argument(help="The question.", show_default=False)],
    k: Annotated[int, typer.Option("-k", metavar="N", min=1, max=REF_MAX, help="How many passages.")] = 10,
    level: Annotated[
        Level | None,
        typer.Option(
            metavar="LEVEL",
            help="How fresh: strong (if nothing else is said), bounded, at_least, exact.",
            show_default=False,
        ),
    ] = None,
    epoch: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Read exactly this epoch.", show_default=False)
    ] = None,
    snapshot: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="Read exactly the epoch of this snapshot.", show_default=False)
    ] = None,
    max_lag: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Read at most so many epochs behind the head.", show_default=False),
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Read as it was then, like 2026-01-31T12:00:00Z.", show_default=False),
    ] = None,
    filter_: Annotated[
        str | None,
        typer.Option("--filter", metavar="JSON", help='Like \'{"field": "team", "eq": "hr"}\'.', show_default=False),
    ] = None,
    principals: options.Principals = None,
    corpus: options.Corpus = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """Find passages at one epoch. Keep the snapshot: validate needs it."""
    from ragver import wire

    fields: dict[str, Any] = {
        "query": query,
        "k": k,
        "consistency": _consistency(level, epoch, snapshot, max_lag),
        "as_of": as_of,
        "filter": options.json_object(filter_, "--filter") or None,
        "principals": principals or [],
    }
    request = wire.RetrieveRequest.model_validate({name: value for name, value in fields.items() if value is not None})

    async def retrieved(connection: Connection) -> wire.RetrieveResponse:
        return await connection.client.retrieve(await connection.corpus(corpus), request)

    found = run(Place(url, data_dir, "retrieve"), retrieved)
    if as_json:
        show_json(found)
    else:
        _show_hits(found)


def validate(
    snapshot: Annotated[str, typer.Option(metavar="TOKEN", help="What retrieve answered with.", show_default=False)],
    answer: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Generated text with markers like [1]; - is standard input.", show_default=False
        ),
    ] = None,
    cite: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REF[:QUOTE]",
            help="A ref or chunk id, and words that it must say; may be repeated.",
            show_default=False,
        ),
    ] = None,
    policy: Annotated[Policy, typer.Option(help="What a bad citation does.")] = Policy.STRICT,
    scope: Annotated[Scope, typer.Option(help="Check what is cited, or all that was retrieved.")] = Scope.CITED,
    record: Annotated[bool, typer.Option("--record", help="Keep what the answer rests on, for recalls.")] = False,
    answer_id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="With --record: under this id; a new one if not given.", show_default=False),
    ] = None,
    principals: options.Principals = None,
    corpus: options.Corpus = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """Check what an answer cites against the ledger as it is now. Exit status 1: rejected."""
    from ragver import wire

    fields: dict[str, Any] = {
        "snapshot": snapshot,
        "answer": sys.stdin.read() if answer == "-" else answer,
        "citations": [_citation(one) for one in cite] if cite else None,
        "policy": policy,
        "scope": scope,
        "principals": principals or [],
        "record": record or None,
        "answer_id": answer_id,
    }
    request = wire.ValidateRequest.model_validate({name: value for name, value in fields.items() if value is not None})

    async def validated(connection: Connection) -> wire.ValidateResponse:
        return await connection.client.validate(await connection.corpus(corpus), request)

    verdict = run(Place(url, data_dir, "validate"), validated)
    if as_json:
        show_json(verdict)
    else:
        _show_verdict(verdict)
    if verdict.verdict is Decision.REJECT:
        raise typer.Exit(1)


def _consistency(
    level: Level | None, epoch: int | None, snapshot: str | None, max_lag: int | None
) -> dict[str, Any] | None:
    fields = {"level": level, "epoch": epoch, "snapshot": snapshot, "max_lag_epochs": max_lag}
    given: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    if not given:
        return None
    implied = Level.BOUNDED if max_lag is not None else Level.EXACT
    return {"level": implied} | given


def _citation(text: str) -> dict[str, Any]:
    number, separator, quote = text.partition(":")
    if not (number.isascii() and number.isdigit()):
        raise typer.BadParameter(f"takes REF or REF:QUOTE, not {text!r}", param_hint="--cite")
    cited: dict[str, Any] = {"ref": int(number)} if int(number) <= REF_MAX else {"chunk_id": number}
    return cited | ({"quote": quote} if separator else {})


def _show_hits(found: wire.RetrieveResponse) -> None:
    columns = [
        Column("ref", "right"),
        Column("score", "right"),
        Column("document", narrow="wrap"),
        Column("version", "right"),
        Column("passage", narrow="cut"),
    ]
    rows = [
        (hit.ref, f"{hit.score:.4f}", hit.document.key, hit.document.version, excerpt(hit.text)) for hit in found.hits
    ]
    if found.hits or not on_terminal():
        show_rows(columns, rows)
    else:
        show_line("Nothing found.")
    if on_terminal():
        show_line(
            f"\nepoch {found.epoch}, head {found.head}, index at {found.applied_epoch}, "
            f"{found.tail} changes read from the ledger"
        )
    show_fields({"snapshot": found.snapshot})


def _show_verdict(verdict: wire.ValidateResponse) -> None:
    fields = {
        "verdict": verdict.verdict,
        "epoch": f"{verdict.epoch}, retrieved at {verdict.snapshot_epoch}",
        "valid for": f"{verdict.valid_for_ms} ms",
    }
    show_fields(fields if verdict.answer_id is None else fields | {"answer": verdict.answer_id})
    columns = [
        Column("ref", "right"),
        Column("chunk", "right"),
        Column("status"),
        Column("document", narrow="wrap"),
        Column("detail", narrow="wrap"),
    ]
    rows = [(one.ref, one.chunk_id, one.status, one.document_key, one.detail) for one in verdict.citations]
    if rows:
        if on_terminal():
            show_line("")
        show_rows(columns, rows)
    if verdict.answer is not None:
        show_line("")
        print(verdict.answer)
