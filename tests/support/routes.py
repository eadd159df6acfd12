"""The application's own route table, for tests that go through all of it."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import dataclass

from ragver.api import access
from ragver.api.access import Needs
from ragver.api.app import create_app


@dataclass(frozen=True, slots=True)
class Call:
    """A route with one of its methods, and what it asks of its caller; None is nothing."""

    method: str
    path: str
    needs: Needs | None

    def to(self, corpus: str) -> tuple[str, str]:
        """What to send: some corpus, and nothing that there is in all other places."""
        return self.method, re.sub(r"\{[^}]*\}", "0", self.path.replace("{corpus}", corpus))


def calls() -> list[Call]:
    """The application's route table."""
    return [
        Call(method, str(route.path_format), needs if isinstance(needs, Needs) else None)
        for route in access.api_routes(create_app(nullcontext, 2**20))  # type: ignore[arg-type]
        for needs in [access.declared(route.dependencies)]
        for method in sorted(route.methods or ())
    ]
