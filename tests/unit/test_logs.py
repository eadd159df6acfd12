"""What goes wrong is logged with the place, and without what was in the variables there."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from ragver.cli import logs
from ragver.telemetry import logger

SECRET = "rgv_0123456789ab_" + "5ec2e7" * 8


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    """Logging belongs to the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def fails(key: str) -> None:
    headers = {"authorization": f"Bearer {key}"}
    raise RuntimeError(f"a defect, with {len(headers)} header")


@pytest.mark.parametrize("on_terminal", [True, False])
def test_a_traceback_shows_no_values(
    on_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever looks and whoever collects: both see where it was, neither the key of the request."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: on_terminal)
    logs.configure("INFO")
    try:
        fails(SECRET)
    except RuntimeError as error:
        logger.error("unexpected_error", path="/v1/corpora", exc_info=error)
    said = capsys.readouterr().err

    assert all(word in said for word in ("unexpected_error", "/v1/corpora", "fails", "a defect"))
    assert SECRET[-12:] not in said
    if not on_terminal:
        (entry,) = [json.loads(line) for line in said.splitlines()]
        assert "error" == entry["level"]
