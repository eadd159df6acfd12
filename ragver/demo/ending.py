"""How the demo ends: commands to serve the handbook and to run the race by hand. A test runs them as printed."""

from __future__ import annotations

import shutil
import sys
from importlib import resources
from pathlib import Path
from typing import Final

from ragver.demo.stage import Stage

URL: Final = "http://127.0.0.1:8000"


def tell(stage: Stage) -> None:
    """Print what to try next."""
    stage.heading("Now by hand")
    stage.say("The demo's stores are gone. To have some that stay, in .ragver below this directory:")
    stage.gap()
    stage.verbatim(serving(program()))
    stage.gap()
    stage.say("In a second terminal, put the handbook in and retrieve:")
    stage.gap()
    stage.verbatim(retrieving(program(), pages()))
    stage.gap()
    stage.say("Delete the page that was found and ask whether the answer may still go out:")
    stage.gap()
    stage.verbatim(validating(program()))
    stage.gap()
    stage.say(f"The API describes itself at {URL}/docs, the command line with --help.")


def serving(ragver: str) -> list[str]:
    """The command that serves, until it is interrupted."""
    return [f"{ragver} serve"]


def retrieving(ragver: str, folder: str) -> list[str]:
    """The commands that import the pages and retrieve from them; they leave the snapshot in a variable."""
    return [
        f"{ragver} import {folder} --corpus handbook",
        f"URL={URL}/v1/corpora/handbook",
        "JSON='Content-Type: application/json'",
        """FOUND=$(curl -s "$URL/retrieve" -H "$JSON" \\""",
        """  -d '{"query": "How much may I put on the company card?", "k": 1}')""",
        """printf '%s\\n' "$FOUND\"""",
        """SNAPSHOT=$(printf '%s' "$FOUND" | sed 's/.*"snapshot":"\\([^"]*\\)".*/\\1/')""",
    ]


def validating(ragver: str) -> list[str]:
    """The commands that delete the page and have the answer checked."""
    return [
        f"{ragver} delete travel/company-card.md --corpus handbook",
        """curl -s "$URL/validate" -H "$JSON" \\""",
        """  -d '{"snapshot": "'$SNAPSHOT'", "answer": "Up to 1,500 euros a month [1]."}'""",
    ]


def program() -> str:
    """How to call ragver from this shell: by its name if that is found, else by the path that was used."""
    called = Path(sys.argv[0])
    if called.name != "ragver" or shutil.which("ragver") == str(called.absolute()):
        return "ragver"
    return _near(called)


def pages() -> str:
    """The folder with the pages as they were first written."""
    return _near(Path(str(resources.files("ragver.demo") / "handbook" / "pages")))


def _near(path: Path) -> str:
    """A path as one would type it here."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)
