"""The index commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragver.cli import options
from ragver.cli.connection import Connection, Place, run
from ragver.cli.corpora import described
from ragver.cli.options import json_object
from ragver.cli.output import Column, on_terminal, show_fields, show_json, show_rows
from ragver.errors import EmbeddingUnchanged, GenerationNotFound
from ragver.types import GenerationState

if TYPE_CHECKING:
    from ragver import wire

app = typer.Typer(
    no_args_is_help=True, help="Build the index anew, or for another embedding, while the old one serves."
)

COLUMNS = [
    Column("id"),
    Column("state"),
    Column("embedding", narrow="wrap"),
    Column("vectors", "right"),
    Column("applied", "right"),
    Column("verified", "right"),
    Column("problem", narrow="wrap"),
]

Prepare = Annotated[
    bool, typer.Option("--prepare", help="Build and check it, and stop there: without this, it serves next time.")
]


@app.command()
def status(
    corpus: options.Corpus = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the generations: which one serves, is being built or stands by."""

    async def found(connection: Connection) -> list[wire.Generation]:
        return await connection.client.generations(await connection.corpus(corpus))

    generations = run(Place(url, data_dir, "index status"), found)
    if as_json:
        show_json({"generations": generations})
    else:
        show_rows(COLUMNS, map(_row, generations))


@app.command()
def rebuild(
    prepare: Prepare = False,
    corpus: options.Corpus = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """Build the index anew from the ledger, vectors included, and let it serve.

    Interrupted at any point, it goes on when run again; a server goes on by itself.
    """
    _make(Place(url, data_dir, "index rebuild"), corpus, None, prepare=prepare, as_json=as_json)


@app.command()
def migrate(
    embedding: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help='The new embedding as in the API: {"provider": "openai", "model": …}.',
            show_default=False,
        ),
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Makes the vectors: hashing, openai, fastembed.", show_default=False),
    ] = None,
    model: options.Model = None,
    dimensions: options.Dimensions = None,
    distance: options.DistanceName = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Go back to the generation that stands by instead.")
    ] = False,
    prepare: Prepare = False,
    corpus: options.Corpus = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """Change the embedding of a corpus: all texts are embedded anew while the old generation serves.

    Interrupted at any point, it goes on when run again; a server goes on by itself. The old generation stands by until
    it is retired, and is kept current meanwhile.
    """
    place = Place(url, data_dir, "index migrate")
    parts = {"provider": provider, "model": model, "dimensions": dimensions, "distance": distance}
    given = {name: value for name, value in parts.items() if value is not None}
    wanted = json_object(embedding, "--embedding") | given
    if rollback:
        if wanted or prepare:
            raise typer.BadParameter("goes back to what was there: it takes no embedding", param_hint="--rollback")
        _roll_back(place, corpus, as_json)
        return
    if not wanted:
        raise typer.BadParameter("say what to change to: --provider (and --model), or --embedding")
    _make(place, corpus, wanted, prepare=prepare, as_json=as_json)


@app.command()
def retire(
    generation: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="The one beside the serving one if not given.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    corpus: options.Corpus = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
) -> None:
    """End a generation that is being built or stands by: its points and vectors are removed for good."""
    if not yes:
        if not on_terminal():
            raise typer.BadParameter("is needed where nobody can be asked", param_hint="--yes")
        which = "the generation beside the serving one" if generation is None else f"generation {generation}"
        typer.confirm(f"Retire {which}? What it was can only be built anew.", abort=True)

    async def retired(connection: Connection) -> None:
        name = await connection.corpus(corpus)
        ended = generation
        if ended is None:
            ended = (await _one_of(connection, name, GenerationState.BUILDING, GenerationState.STANDBY)).id
        await connection.client.retire_generation(name, ended)

    run(Place(url, data_dir, "index retire"), retired)


def _make(place: Place, corpus: str | None, embedding: dict[str, Any] | None, *, prepare: bool, as_json: bool) -> None:
    from ragver import wire
    from ragver.cli.generations import built, cut_over
    from ragver.client import ApiError

    wanted = None if embedding is None else wire.Embedding.model_validate(embedding)

    async def made(connection: Connection) -> wire.Generation | wire.CutOver:
        client, name = connection.client, await connection.corpus(corpus)
        generation = await client.begin_generation(name, embedding=wanted)
        return await built(client, name, generation.id) if prepare else await cut_over(client, name, generation.id)

    try:
        _show(run(place, made), as_json)
    except ApiError as error:
        # As it is after an earlier run that was interrupted only when all was done.
        if error.code != EmbeddingUnchanged.code:
            raise
        _show_unchanged(place, corpus, as_json)


def _show_unchanged(place: Place, corpus: str | None, as_json: bool) -> None:
    async def serving(connection: Connection) -> wire.Generation:
        return await _one_of(connection, await connection.corpus(corpus), GenerationState.SERVING)

    _show(run(place, serving), as_json)


def _roll_back(place: Place, corpus: str | None, as_json: bool) -> None:
    from ragver.cli.generations import cut_over

    async def gone_back(connection: Connection) -> wire.CutOver:
        name = await connection.corpus(corpus)
        standby = await _one_of(connection, name, GenerationState.STANDBY)
        return await cut_over(connection.client, name, standby.id)

    _show(run(place, gone_back), as_json)


async def _one_of(connection: Connection, corpus: str, *states: GenerationState) -> wire.Generation:
    for generation in await connection.client.generations(corpus):
        if generation.state in states:
            return generation
    raise GenerationNotFound(
        f"the corpus has no generation that is {' or '.join(states)}; `ragver index status` lists what there is"
    )


def _row(generation: wire.Generation) -> tuple[object, ...]:
    return (
        generation.id,
        generation.state.value,
        described(generation.embedding),
        f"{generation.embedded}/{generation.chunks}",
        f"{generation.applied_epoch}/{generation.head}",
        generation.verified_epoch,
        generation.problem,
    )


def _show(made: wire.Generation | wire.CutOver, as_json: bool) -> None:
    from ragver import wire

    if as_json:
        show_json(made)
        return
    generation = made.generation if isinstance(made, wire.CutOver) else made
    fields: dict[str, object] = {
        "generation": f"{generation.id}, {generation.state}",
        "embedding": described(generation.embedding),
        "chunks": generation.chunks,
    }
    if isinstance(made, wire.CutOver):
        fields["commits waited"] = f"{made.locked_ms:.1f} ms, after epoch {made.epoch}"
        fields["stands by"] = f"{made.former}: go back with `ragver index migrate --rollback`, or let go of it with"
        fields["stands by"] = f"{fields['stands by']} `ragver index retire {made.former}`"
    elif generation.state is GenerationState.BUILDING:
        fields["verified"] = f"equal to the ledger at epoch {generation.verified_epoch}; run this without --prepare"
    show_fields(fields)
