"""The command line. `main` is what the installed `ragver` runs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit: 0 fine, 1 the answer is "no", 2 it could not be done."""
    try:
        from ragver.cli.app import app
    except ModuleNotFoundError as missing:
        if missing.name not in ("typer", "rich"):
            raise
        # The base install is the client alone and ends here; without rich, so without the usual way to say so.
        print("error: the command line is not installed: install ragver[embedded] (not_installed)", file=sys.stderr)
        sys.exit(2)
    app()
