"""The corpus commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragver.cli import options
from ragver.cli.connection import Connection, Place, run
from ragver.cli.output import Column, on_terminal, show_fields, show_json, show_line, show_rows
from ragver.types import FieldType

if TYPE_CHECKING:
    from ragver import wire

app = typer.Typer(no_args_is_help=True, help="Make, list, show and delete corpora.")

Name = Annotated[str, typer.Argument(help="The corpus.", show_default=False)]
COLUMNS = [
    Column("corpus", narrow="wrap"),
    Column("head", "right"),
    Column("applied", "right"),
    Column("lag", "right"),
    Column("documents", "right"),
    Column("chunks", "right"),
    Column("embedding", narrow="wrap"),
]


@app.command()
def create(
    name: Name,
    provider: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Makes the vectors: hashing, openai, fastembed; external: you bring them.",
            show_default=False,
        ),
    ] = None,
    model: options.Model = None,
    dimensions: options.Dimensions = None,
    distance: options.DistanceName = None,
    retention: Annotated[
        int | None,
        typer.Option(
            metavar="SECONDS", help="How long older epochs can be read; for ever if not given.", show_default=False
        ),
    ] = None,
    verdict_ttl_ms: Annotated[
        int | None,
        typer.Option(
            metavar="MS", help="How long a verdict may be acted on; a fence waits that long.", show_default=False
        ),
    ] = None,
    filterable: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=TYPE",
            help=f"A metadata field that filters may name ({', '.join(FieldType)}); may be repeated.",
            show_default=False,
        ),
    ] = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """Make an empty corpus at epoch 0."""
    from ragver import wire

    embedding = {"provider": provider, "model": model, "dimensions": dimensions, "distance": distance}
    fields: dict[str, Any] = {
        "name": name,
        "embedding": _given(embedding) or None,
        "retention_s": retention,
        "verdict_ttl_ms": verdict_ttl_ms,
        "filterable": _fields(filterable or []),
    }
    if fields["embedding"] is not None and provider is None:
        raise typer.BadParameter("goes with --provider", param_hint="--model, --dimensions, --distance")
    request = wire.CorpusCreate.model_validate(_given(fields))
    made = run(Place(url, data_dir, "corpus create"), lambda connection: connection.client.create_corpus(request))
    _show(made, as_json)


@app.command("list")
def list_all(url: options.Url = None, data_dir: options.DataDirectory = None, as_json: options.AsJson = False) -> None:
    """List the corpora with their sizes."""
    found = run(Place(url, data_dir, "corpus list"), lambda connection: connection.client.corpora())
    if as_json:
        show_json({"corpora": found})
    elif not found and on_terminal():
        show_line("There is no corpus yet; make one with `ragver corpus create NAME`.")
    else:
        show_rows(COLUMNS, map(row, found))


@app.command()
def show(
    name: Annotated[
        str | None, typer.Argument(help="The corpus; the only one if not given.", show_default=False)
    ] = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """Show a corpus: its head, horizon, sizes and settings."""

    async def found(connection: Connection) -> wire.Corpus:
        return await connection.client.corpus(await connection.corpus(name))

    _show(run(Place(url, data_dir, "corpus show"), found), as_json)


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
) -> None:
    """Delete a corpus with everything in it, for good."""
    if not yes:
        if not on_terminal():
            raise typer.BadParameter("is needed where nobody can be asked", param_hint="--yes")
        typer.confirm(f"Delete the corpus {name} with all its documents and their history?", abort=True)
    run(Place(url, data_dir, "corpus delete"), lambda connection: connection.client.delete_corpus(name))


def row(corpus: wire.Corpus) -> tuple[object, ...]:
    """A corpus as a row of ``COLUMNS``."""
    lag = corpus.head - corpus.applied_epoch
    embedding = described(corpus.embedding)
    return corpus.name, corpus.head, corpus.applied_epoch, lag, corpus.documents, corpus.chunks, embedding


def _show(corpus: wire.Corpus, as_json: bool) -> None:
    if as_json:
        show_json(corpus)
        return
    fields = corpus.model_dump(mode="json") | {
        "embedding": described(corpus.embedding),
        "filterable": " ".join(f"{field}={kind}" for field, kind in corpus.filterable.items()) or "nothing",
        "retention_s": corpus.retention_s or "for ever",
    }
    show_fields(fields)


def described(embedding: wire.Embedding) -> str:
    """An embedding on one line."""
    parts = [embedding.provider, embedding.model, embedding.dimensions, embedding.distance]
    return " ".join(str(part) for part in parts if part is not None)


def _fields(declared: list[str]) -> dict[str, str]:
    fields = {}
    for declaration in declared:
        field, separator, kind = declaration.partition("=")
        if not separator or kind not in list(FieldType):
            raise typer.BadParameter(
                f"takes FIELD=TYPE with a type of {', '.join(FieldType)}, not {declaration!r}",
                param_hint="--filterable",
            )
        fields[field] = kind
    return fields


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
