"""The explain command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ragver.cli import options
from ragver.cli.connection import Connection, Place, run
from ragver.cli.output import Column, on_terminal, show_fields, show_json, show_line, show_rows
from ragver.errors import NotFound

if TYPE_CHECKING:
    from ragver import wire

COLUMNS = [
    Column("epoch", "right"),
    Column("time"),
    Column("event"),
    Column("what", narrow="wrap"),
    Column("by", narrow="cut"),
    Column("reason", narrow="wrap"),
]
KINDS = ("chunk_id", "key", "answer_id")


def explain(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="ID|KEY",
            help="A chunk's id, a document's key or an answer's id, tried in this order.",
            show_default=False,
        ),
    ],
    corpus: options.Corpus = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """Tell the story of a citation: born, carried on, retrieved, validated, dead, by whom and why."""

    async def told(connection: Connection) -> wire.Story:
        return await _found(connection, await connection.corpus(corpus), subject)

    story = run(Place(url, data_dir, "explain"), told)
    if as_json:
        show_json(story)
    else:
        _show(story)


async def _found(connection: Connection, corpus: str, subject: str) -> wire.Story:
    from ragver.client import ApiError

    number = subject.isascii() and subject.isdigit()
    for kind in KINDS if number else KINDS[1:]:
        try:
            return await connection.client.explain(corpus, **{kind: subject})
        except ApiError as error:
            # What cannot be an answer's id is none.
            if error.status not in (404, 422) or error.code == "corpus_not_found":
                raise
    raise NotFound(f"there is no chunk, document or recorded answer {subject!r} in {corpus!r}")


def _show(story: wire.Story) -> None:
    show_fields({story.subject: story.name, "state": story.state, "as of": f"epoch {story.head}"})
    if on_terminal():
        show_line("")
    show_rows(COLUMNS, map(_row, story.events))
    if not story.complete and on_terminal():
        show_line("There is more, and older, than is told here.")


def _row(event: wire.StoryEvent) -> tuple[object, ...]:
    time = None if event.at is None else f"{event.at:%Y-%m-%d %H:%M:%S}"
    return event.epoch, time, event.event, event.detail, event.actor, event.reason
