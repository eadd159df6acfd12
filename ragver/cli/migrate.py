"""The migrate command."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ragver.cli import logs, options
from ragver.cli.output import show_fields, show_json

if TYPE_CHECKING:
    from ragver.settings import Settings


def migrate(data_dir: options.DataDirectory = None, as_json: options.AsJson = False) -> None:
    """Bring the ledger's schema to this version's revision; safe to run again and from several places.

    The ledger is the one at **RAGVER_DATABASE_URL**, else the one embedded in the data directory, which
    every start also brings up to date by itself.
    """
    from ragver.ledger import migrations
    from ragver.settings import read_settings

    logs.configure("ERROR")
    with _ledger(read_settings(data_dir)) as url:
        before = asyncio.run(migrations.revision(url))
        asyncio.run(migrations.migrate(url))
        revisions = {"from": before, "to": asyncio.run(migrations.revision(url))}
    if as_json:
        show_json(revisions)
    else:
        show_fields({"from": before or "nothing", "to": revisions["to"]})


@contextmanager
def _ledger(settings: Settings) -> Iterator[str]:
    if settings.database_url is not None:
        yield settings.database_url
        return
    from ragver.embedded.datadir import DataDir
    from ragver.embedded.postgres import EmbeddedPostgres

    data = DataDir(settings.data_dir)
    with data.claim("ragver migrate"):
        postgres = EmbeddedPostgres(data.postgres)
        try:
            yield postgres.start()
        finally:
            postgres.stop()
