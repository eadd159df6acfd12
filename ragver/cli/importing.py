"""The import command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragver.cli import options
from ragver.cli.connection import Connection, Place, run
from ragver.cli.output import show_fields, show_json
from ragver.errors import InvalidRequest

if TYPE_CHECKING:
    from ragver.cli.replaying import Tally
    from ragver.cli.sources import Source


def import_(
    path: Annotated[
        Path | None, typer.Argument(help="A folder of .md, .markdown or .txt files.", show_default=False)
    ] = None,
    git: Annotated[
        Path | None,
        typer.Option(metavar="REPO", help="Replay a git repository's first-parent history.", show_default=False),
    ] = None,
    subdir: Annotated[
        str, typer.Option(metavar="DIR", help="With --git: only what is below DIR.", show_default=False)
    ] = "",
    branch: Annotated[str, typer.Option(metavar="NAME", help="With --git: the branch or commit.")] = "HEAD",
    replay: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Replay a recorded history (.jsonl, .jsonl.gz).", show_default=False),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="With a folder: delete the documents that are not in it.")
    ] = False,
    acl: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL",
            help="Who may read all this, such as group:hr; may be repeated. None: everybody.",
            show_default=False,
        ),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            envvar="RAGVER_CORPUS",
            help="The corpus, made if there is none; if not given, called like what is imported.",
            rich_help_panel="Where",
            show_default=False,
        ),
    ] = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """Bring a folder, or a whole history, into a corpus.

    A folder becomes one commit. A history becomes a commit each, in order; if it is interrupted, run the same
    command again and it goes on where it was.
    """
    from ragver.settings import read_settings

    source = _source(path, git, subdir, branch, replay, prune, acl)
    name = corpus or source.name
    bytes_max = read_settings(data_dir).request_bytes_max
    tally = run(
        Place(url, data_dir, "import"), lambda connection: _imported(connection, name, source, prune, bytes_max)
    )
    if as_json:
        show_json(_summary(name, tally))
    else:
        show_fields(_described(name, tally))


def _source(
    path: Path | None,
    git: Path | None,
    subdir: str,
    branch: str,
    replay: Path | None,
    prune: bool,
    acl: list[str] | None,
) -> Source:
    from ragver.cli.git import GitSource
    from ragver.cli.sources import FolderSource, ReplaySource

    if sum(given is not None for given in (path, git, replay)) != 1:
        raise typer.BadParameter("give one of PATH, --git and --replay")
    if prune and path is None:
        raise typer.BadParameter("goes with a folder; a history deletes what it deleted", param_hint="--prune")
    if git is not None:
        return GitSource(git, subdir, branch, acl)
    if replay is not None:
        return ReplaySource(replay, acl)
    assert path is not None
    if not path.is_dir():
        raise InvalidRequest(f"{path} is no folder; a single document is put with `ragver put KEY FILE`")
    return FolderSource(path, acl)


async def _imported(connection: Connection, corpus: str, source: Source, prune: bool, bytes_max: int) -> Tally:
    from ragver.cli.progress import shown
    from ragver.cli.replaying import Tally, ensure_corpus, replay

    await ensure_corpus(connection.client, corpus)
    tally = Tally()
    with shown(tally, source.total) as progressed:
        await replay(
            connection.client,
            corpus,
            source,
            tally,
            prune=prune,
            request_bytes_max=bytes_max,
            progressed=progressed,
        )
    tally.finish()
    return tally


def _summary(corpus: str, tally: Tally) -> dict[str, Any]:
    return {
        "corpus": corpus,
        "epoch": tally.epoch,
        "commits": tally.commits,
        "skipped": tally.skipped,
        "documents": dict(tally.documents),
        "chunks_added": tally.chunks_added,
        "chunks_kept": tally.chunks_kept,
        "chunks_removed": tally.chunks_removed,
        "seconds": round(tally.elapsed_s, 3),
        "seconds_by_stage": {stage: round(seconds, 3) for stage, seconds in tally.timings().items()},
    }


def _described(corpus: str, tally: Tally) -> dict[str, str]:
    seconds = tally.elapsed_s
    documents = ", ".join(f"{count:,} {status}" for status, count in sorted(tally.documents.items()))
    stages = ", ".join(f"{stage} {spent:.1f} s ({spent / seconds:.0%})" for stage, spent in tally.timings().items())
    earlier = f", {tally.skipped:,} were there already" if tally.skipped else ""
    fields = {
        "corpus": corpus if tally.epoch is None else f"{corpus}, now at epoch {tally.epoch}",
        "commits": f"{tally.commits:,}{earlier}",
    }
    if tally.commits == 0:
        return fields
    return fields | {
        "documents": documents or "none changed",
        "chunks": f"{tally.chunks_added:,} added, {tally.chunks_kept:,} kept, {tally.chunks_removed:,} removed",
        "rate": f"{tally.commits / seconds:,.1f} commits/s, {tally.chunks_added / seconds:,.0f} new chunks/s",
        "time": f"{seconds:.1f} s: {stages}",
    }
