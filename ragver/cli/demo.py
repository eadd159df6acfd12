"""The demo command."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(fast: Annotated[bool, typer.Option("--fast", help="Do not wait for the model to write.")] = False) -> None:
    """Tell the story of the race on a sample handbook, in under a minute.

    It opens stores of its own in a temporary directory and leaves nothing behind.
    """
    from ragver.cli import logs
    from ragver.demo import story

    logs.configure("ERROR")
    story.run(fast=fast)
