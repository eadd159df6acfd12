"""The client: a ragver server's API as typed calls. Needs pydantic and httpx, and no database.

``AsyncClient`` is the source of everything; ``Client``, its synchronous twin, and the handles on one corpus
(``client["policies"]``) are derived from it.
"""

from ragver.client.client import AsyncClient
from ragver.client.corpus import AsyncCorpus
from ragver.client.errors import ApiError, ServerUnreachable
from ragver.client.opening import Opening, open
from ragver.client.prompts import numbered
from ragver.client.retries import NO_RETRIES, Retries
from ragver.client.sync.client import Client
from ragver.client.sync.corpus import Corpus
from ragver.client.verdict import Lease, Reuse, ReuseOfMany, Verdict
from ragver.gate import AnswerRetracted

__all__ = [
    "NO_RETRIES",
    "AnswerRetracted",
    "ApiError",
    "AsyncClient",
    "AsyncCorpus",
    "Client",
    "Corpus",
    "Lease",
    "Opening",
    "Retries",
    "Reuse",
    "ReuseOfMany",
    "ServerUnreachable",
    "Verdict",
    "numbered",
    "open",
]
