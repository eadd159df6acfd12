"""The erase command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragver.cli import options
from ragver.cli.connection import Connection, Place, run
from ragver.cli.output import Column, on_terminal, show_fields, show_json, show_line, show_rows

if TYPE_CHECKING:
    from ragver import wire

COLUMNS = [
    Column("store", narrow="wrap"),
    Column("state"),
    Column("verified by", narrow="wrap"),
]


def erase(
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY…", help="Documents, with all their versions and renames.", show_default=False),
    ] = None,
    keys_too: Annotated[
        bool, typer.Option("--keys-too", help="Replace the keys themselves as well, wherever they are kept.")
    ] = False,
    reason: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Why; it stays in the log, so name no person.", show_default=False),
    ] = None,
    actor: options.Actor = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    verify: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Check the receipt in this file, and the stores again; - is standard input.",
            show_default=False,
        ),
    ] = None,
    public_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="With --verify: the key to trust. The server's if not given.", show_default=False
        ),
    ] = None,
    corpus: options.Corpus = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """Erase documents for good, from both stores, and print a signed receipt.

    Keep the receipt (`--json`). Exit status 1: a store is still pending; it completes by itself. With --verify: the
    receipt is not genuine, or something is left.
    """
    place = Place(url, data_dir, "erase")
    if verify is not None:
        _verify(place, verify, public_key, as_json)
        return
    if not keys:
        raise typer.BadParameter("name at least one", param_hint="KEY")
    if reason is None:
        raise typer.BadParameter("is needed: it goes into the log and the receipt", param_hint="--reason")
    _confirm(keys, yes)
    _erase(place, corpus, keys, keys_too, reason, actor, as_json)


def _confirm(keys: list[str], yes: bool) -> None:
    if yes:
        return
    if not on_terminal():
        raise typer.BadParameter("is needed where nobody can be asked", param_hint="--yes")
    typer.confirm(f"Erase {', '.join(keys)} with all versions, for good?", abort=True)


def _erase(
    place: Place, corpus: str | None, keys: list[str], keys_too: bool, reason: str, actor: str | None, as_json: bool
) -> None:
    async def erased(connection: Connection) -> wire.ErasureReceipt:
        name = await connection.corpus(corpus)
        return await connection.client.erase(name, keys, reason=reason, actor=actor, keys_too=keys_too)

    receipt = run(place, erased)
    if as_json:
        show_json(receipt)
    else:
        _show(receipt)
    if receipt.state != "complete":
        raise typer.Exit(1)


def _show(receipt: wire.ErasureReceipt) -> None:
    show_fields(
        {
            "erasure": receipt.id,
            "state": receipt.state,
            "epoch": receipt.epoch,
            "documents": receipt.documents,
            "versions": receipt.versions,
            "chunks": receipt.chunks,
            "key": receipt.key_id,
        }
    )
    _show_stores(receipt.stores)
    if on_terminal():
        show_line("\nNot covered, and what closes it:")
        for gap in receipt.not_covered:
            show_line(f"- {gap.what}: {gap.close_by}")


def _show_stores(stores: list[wire.StoreReceipt]) -> None:
    if on_terminal():
        show_line("")
    show_rows(COLUMNS, [(store.store, store.state, _ways(store)) for store in stores])


def _ways(store: wire.StoreReceipt) -> str:
    return "; ".join([*store.verified_by, *([store.detail] if store.detail else [])])


def _verify(place: Place, file: Path, public_key: str | None, as_json: bool) -> None:
    receipt = _read(file)

    async def checked(connection: Connection) -> tuple[str, wire.ErasureCheck]:
        key = public_key or (await connection.client.receipt_key()).public_key
        return key, await connection.client.check_erasure(receipt.corpus, receipt.id)

    key, check = run(place, checked)
    from ragver.receipts import genuine

    signed = genuine(receipt, key)
    if as_json:
        show_json({"genuine": signed, "complete": receipt.state == "complete", "now": check})
    else:
        said = "genuine" if signed else "not genuine: it was changed, or signed with another key"
        show_fields({"receipt": said, "said": receipt.state, "stores now": "erased" if check.erased else "pending"})
        _show_stores(check.stores)
    if not (signed and check.erased and receipt.state == "complete"):
        raise typer.Exit(1)


def _read(file: Path) -> wire.ErasureReceipt:
    import sys

    from ragver import wire

    content = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    return wire.ErasureReceipt.model_validate_json(content)
