"""Logs on stderr: readable on a terminal, a JSON object a line elsewhere."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

Level = Literal["INFO", "ERROR"]
QUIET = ("uvicorn", "uvicorn.error", "alembic", "httpx")
"""They talk at level INFO about what is of no use to whoever runs ragver."""


class _Stderr(logging.Handler):
    """Writes to what is stderr at the moment, also where that changes."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def configure(level: Level) -> None:
    """Send ragver's logs and those of its libraries, from `level` on, to stderr in one form."""
    import structlog

    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared[:2],
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    handler = _Stderr()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(structlog)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [other for other in root.handlers if not isinstance(other, _Stderr)] + [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _rendering(structlog: Any) -> list[Any]:
    # Tracebacks without the values of variables: among them are requests with their keys, texts and passwords.
    if sys.stderr.isatty():
        return [
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.RichTracebackFormatter(show_locals=False))
        ]
    frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(frames),
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ]
