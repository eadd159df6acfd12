"""Which epoch a retrieval reads, and whether it can be read."""

from __future__ import annotations

from typing import assert_never

from ragver import wire
from ragver.errors import EpochAhead, InvalidRequest, SnapshotExpired, TimeAhead
from ragver.ledger import corpora
from ragver.ledger.corpora import CorpusInfo, Head
from ragver.ledger.database import Database
from ragver.liveness import CorpusView
from ragver.tokens import SnapshotTokens
from ragver.types import Epoch, Level

BOUNDED_LAG_EPOCHS_DEFAULT = 100


def is_strong(request: wire.RetrieveRequest) -> bool:
    """Whether the request wants whatever the head is when it is answered."""
    return request.as_of is None and (request.consistency is None or request.consistency.level is Level.STRONG)


async def committed_by(database: Database, info: CorpusInfo, request: wire.RetrieveRequest) -> Epoch | None:
    """The epoch of the request's `as_of`, if it has one. A head that is read after this is at least as new."""
    if request.as_of is None:
        return None
    epoch, now = await corpora.epoch_at(database, info.corpus_id, request.as_of)
    if request.as_of > now:
        raise TimeAhead(f"`as_of` lies ahead of the ledger's clock ({now.isoformat()}); leave it out for now")
    return epoch


async def of_level(request: wire.RetrieveRequest, view: CorpusView, head: Head, tokens: SnapshotTokens) -> Epoch:
    """The epoch that the request's consistency level means at this head.

    Raises ``EpochAhead`` or ``SnapshotForeign`` for a snapshot that this ledger has never issued, or has undone.
    """
    wanted = request.consistency or wire.Consistency()
    match wanted.level:
        case Level.STRONG:
            return head.epoch
        case Level.BOUNDED:
            lag = BOUNDED_LAG_EPOCHS_DEFAULT if wanted.max_lag_epochs is None else wanted.max_lag_epochs
            return Epoch(max(head.applied, head.horizon, head.epoch - lag))
        case Level.AT_LEAST:
            return max(head.applied, head.horizon, await _named(view, head, wanted, tokens))
        case Level.EXACT:
            return await _named(view, head, wanted, tokens)
        case _:
            assert_never(wanted.level)


async def _named(view: CorpusView, head: Head, wanted: wire.Consistency, tokens: SnapshotTokens) -> Epoch:
    if wanted.snapshot is not None:
        snapshot = tokens.read(wanted.snapshot, view.info.corpus_id)
        _check_issued(snapshot.epoch, view.info, head)
        await view.require(snapshot)
        return snapshot.epoch
    if wanted.epoch is None:
        raise InvalidRequest(f"level {wanted.level} needs `epoch` or `snapshot`")
    return Epoch(wanted.epoch)


def check(epoch: Epoch, info: CorpusInfo, head: Head) -> None:
    """Raise ``EpochAhead`` or ``SnapshotExpired`` if nobody can read the epoch."""
    _check_issued(epoch, info, head)
    check_horizon(epoch, head)


def _check_issued(epoch: Epoch, info: CorpusInfo, head: Head) -> None:
    if epoch > head.epoch:
        raise EpochAhead(f"epoch {epoch} has not been issued; the head of {info.name!r} is {head.epoch}")


def check_horizon(epoch: Epoch, head: Head) -> None:
    """Raise ``SnapshotExpired`` if the horizon has passed the epoch."""
    if epoch < head.horizon:
        raise SnapshotExpired(
            f"epoch {epoch} lies before the horizon {head.horizon}; retrieve again for a new snapshot"
        )
