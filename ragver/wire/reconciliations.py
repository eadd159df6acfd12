"""Reconciliations and what they find."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from ragver.types import DriftKind, History, RunState
from ragver.wire.common import Body


class ReconciliationRequest(Body):
    repair: bool = Field(False, description="put right what is found; else it is only told")
    max_drift_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="if a greater share of the points differs, a repair is not begun and nothing changed"
    )
    verify_vectors: bool = Field(
        False, description="compare every vector and search for every point, not only for a sample of them"
    )
    points_per_s: Annotated[int, Field(gt=0, le=1_000_000)] | None = Field(
        None, description="compare no faster than this"
    )


class Finding(Body):
    kind: DriftKind
    chunk_id: str | None = Field(description="null where the collection itself is meant")
    document_key: str | None = Field(description="the key that the chunk's document has now, if it has one")
    evidence: dict[str, Any] = Field(description="epochs on both sides, and the names of what differs")
    repaired: bool


class Reconciliation(Body):
    id: str
    state: RunState = Field(description="stopped: a guard said no, and nothing was changed")
    detail: str | None = Field(description="what to do, where there is something to do")
    repair: bool
    verify_vectors: bool
    max_drift_ratio: float
    points_per_s: int | None
    epoch: int = Field(description="both stores were compared as of this epoch; what changed later was passed over")
    history: History = Field(description="how ledger and index belong together: whether one was restored from a backup")
    phase: Literal["compare", "repair"]
    points: int = Field(description="compared so far")
    points_expected: int = Field(description="about how many there are")
    in_flight: int = Field(description="of these, passed over, since the indexer was at work on them")
    drift: int = Field(description="all findings")
    drift_ratio: float = Field(description="the share of the points that differ")
    counts: dict[DriftKind, int] = Field(description="findings by kind, always all kinds")
    repaired: dict[DriftKind, int] = Field(description="of these, put right")
    started_at: datetime
    finished_at: datetime | None
    resumed: int = Field(description="how often another process went on with it")
    findings: list[Finding] = Field(description="the first of them; none in a list of runs")
    findings_omitted: int = Field(description="how many more there were")


class ReconciliationList(Body):
    reconciliations: list[Reconciliation] = Field(description="the newest first")
    last_success: datetime | None = Field(description="when the last complete one began")
    now: datetime = Field(description="the ledger's clock, which all these times are of")
