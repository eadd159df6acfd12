"""What a run says to people, and the numbers that decide it. Pure."""

from __future__ import annotations

from ragver.ledger.reconciliations import Progress, Wanted
from ragver.types import DriftKind, History

_ADVICE = {
    History.EMPTIED: "the collection is empty and without its stamp, though changes had been applied to it: it was "
    "made anew from outside. The indexer notices and fills it again from the ledger; wait for it, then run this again",
    History.INDEX_OLDER: "the index comes from a backup: it is behind what was applied to it. The indexer notices and "
    "applies the rest again; what it cannot undo is found here",
    History.LEDGER_OLDER: "the ledger comes from a backup that is older than the index, which holds epochs that the "
    "ledger does not have. If that ledger is to stay, repair the index, with a higher max_drift_ratio if need be; "
    "all vectors are compared, since chunk ids may be given out again",
    History.FORKED: "the ledger was restored from a backup and has gone on from there: it has other commits than those "
    "that the index holds. Repair the index, with a higher max_drift_ratio if need be; all vectors are compared, "
    "since chunk ids may have been given out twice",
    History.FOREIGN: "the collection belongs to another ledger; nothing was compared or changed. Look whether the "
    "settings name the ledger and the index that belong together",
}


NOT_MADE = "the indexer has not made the collection yet, so there was nothing to compare; run it again later"


def of_history(history: History) -> str | None:
    """What to do about stores that are not as far as each other; None where there is nothing to do."""
    return _ADVICE.get(history)


def of_two_histories(progress: Progress) -> bool:
    """Whether the index holds what another history of the ledger, lost since, has brought."""
    return progress.history in (History.LEDGER_OLDER, History.FORKED)


def drift_ratio(progress: Progress) -> float:
    """The share of the compared points that differ."""
    points = sum(count for kind, count in progress.found.items() if kind is not DriftKind.MISCONFIGURED)
    return points / max(1, progress.points)


def too_much(progress: Progress, wanted: Wanted) -> str:
    """Why a repair was not begun."""
    why = of_history(progress.history)
    return (
        f"{drift_ratio(progress):.1%} of {progress.points} points differ, and max_drift_ratio is "
        f"{wanted.max_drift_ratio:.1%}: nothing was changed. " + (why or "Look at the findings before you raise it")
    )
