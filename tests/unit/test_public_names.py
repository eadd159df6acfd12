"""What `import ragver` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ragver
import ragver.client

SERVERS = ("sqlalchemy", "asyncpg", "fastapi", "starlette", "qdrant_client", "qdrant_edge", "numpy", "structlog")


def test_the_short_names_are_those_of_the_client() -> None:
    for name in set(ragver.__all__) - {"__version__"}:
        assert getattr(ragver, name) is getattr(ragver.client, name)

    assert sorted(ragver.__all__) == dir(ragver)


@pytest.mark.parametrize("module", [ragver, ragver.client])
def test_every_public_name_is_there_and_listed_in_order(module: object) -> None:
    names = vars(module)["__all__"]

    assert all(hasattr(module, name) for name in names)
    assert len(set(names)) == len(names)


def test_what_is_not_there_is_not_made_up() -> None:
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        _ = ragver.opne


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_client_needs_no_database_and_no_server() -> None:
    """The base install has pydantic and httpx, and no more; all that can be reached through `ragver` makes do."""
    script = f"""
import sys, ragver
for name in ragver.__all__:
    getattr(ragver, name)
print([name for name in {SERVERS!r} if name in sys.modules])
"""

    assert "[]" == run(script)


def test_the_version_costs_nothing() -> None:
    script = (
        "import sys, ragver\nprint(ragver.__version__, [name for name in ('pydantic', 'httpx') if name in sys.modules])"
    )

    assert f"{ragver.__version__} []" == run(script)


def test_without_the_stores_open_says_what_to_install() -> None:
    script = """
import sys, ragver
from ragver.errors import NotInstalled
sys.modules["sqlalchemy"] = None
try:
    with ragver.open():
        pass
except NotInstalled as error:
    print(error)
"""

    assert "pip install 'ragver[embedded]'" in run(script)
