"""The commands in one place, and what becomes of their errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ragver import __version__
from ragver.cli import (
    changes,
    corpora,
    demo,
    erasure,
    explaining,
    history,
    importing,
    index,
    keys,
    migrate,
    options,
    reads,
    recalls,
    reconcile,
    retention,
    serve,
    status,
)
from ragver.cli.output import complain, explained

INTERRUPTED = 130


class Commands(TyperGroup):
    """Commands whose expected failures are one line on stderr and exit status 2."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        _take_api_keys(self.commands.values())

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order in which a newcomer needs them."""
        return [name for name in ORDER if name in self.commands]

    def invoke(self, ctx: Any) -> Any:
        """Run a command; a failure that ragver foresaw becomes its message, anything else is a defect."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            complain("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            message = explained(error)
            if message is None:
                raise
            complain(message)
            raise typer.Exit(2) from error


def _take_api_keys(commands: Iterable[Any]) -> None:
    """Give `--api-key` to each command that takes `--url`, so that none can be without it."""
    for command in commands:
        if isinstance(command, TyperGroup):
            _take_api_keys(command.commands.values())
            continue
        places = [place for place, parameter in enumerate(command.params) if parameter.name == "url"]
        for place in places:
            command.params.insert(place + 1, _api_key_option())


def _api_key_option() -> Any:
    donor = typer.Typer(add_completion=False)

    @donor.command()
    def _(api_key: options.ApiKey = None) -> None: ...

    return typer.main.get_command(donor).params[0]


ORDER = (
    "demo",
    "serve",
    "migrate",
    "corpus",
    "put",
    "delete",
    "import",
    "retrieve",
    "validate",
    "log",
    "reconcile",
    "recalls",
    "explain",
    "index",
    "gc",
    "erase",
    "keys",
    "status",
)

app = typer.Typer(
    name="ragver",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="The consistency layer for retrieval-augmented generation.\n\n"
    "Commands talk to the server at **--url**, else to the one that runs on the data directory. "
    "If none runs there, they open the stores embedded in it themselves.\n\n"
    "Exit status: 0 fine, 1 the answer is no (say, a verdict of reject), 2 it could not be done.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ragver {__version__}")
        raise typer.Exit


@app.callback()
def _ragver(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Only here to take the options that go before a command."""


app.command("demo")(demo.demo)
app.command("serve")(serve.serve)
app.command("migrate")(migrate.migrate)
app.add_typer(corpora.app, name="corpus")
app.command("put")(changes.put)
app.command("delete")(changes.delete)
app.command("import")(importing.import_)
app.command("retrieve")(reads.retrieve)
app.command("validate")(reads.validate)
app.command("log")(history.log)
app.command("recalls")(recalls.recalls)
app.command("explain")(explaining.explain)
app.add_typer(index.app, name="index")
app.add_typer(keys.app, name="keys")
app.command("reconcile")(reconcile.reconcile)
app.command("gc")(retention.gc)
app.command("erase")(erasure.erase)
app.command("status")(status.status)
