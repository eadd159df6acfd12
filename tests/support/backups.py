"""Backups of a ledger with PostgreSQL's own programs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ragver.embedded.programs import Programs

NOWHERE = Path("/nonexistent")
"""Any directory without data selects the newest programs."""


def dump(url: str, file: Path) -> None:
    """Write a backup of the database, in PostgreSQL's custom format."""
    _run("pg_dump", "--format=custom", f"--file={file}", url)


def restore(file: Path, url: str) -> None:
    """Make the database what the backup says, whatever it holds; whoever is connected stays so."""
    _run("pg_restore", "--clean", "--if-exists", "--single-transaction", "--no-owner", f"--dbname={url}", str(file))


def _run(program: str, *arguments: str) -> None:
    subprocess.run([Programs(NOWHERE).directory / program, *arguments], check=True, capture_output=True)
