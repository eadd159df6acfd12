"""The demo command."""

from __future__ import annotations

import importlib


def demo() -> None:
    """Tell the story of the race on a sample handbook, in under a minute."""
    try:
        story = importlib.import_module("ragver.demo.story")
    except ModuleNotFoundError:
        from ragver.errors import NotInstalled

        raise NotInstalled("this installation has no demo") from None
    story.run()
