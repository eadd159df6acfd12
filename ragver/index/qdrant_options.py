"""Where a Qdrant server is, how it is spoken to, and how much of a cluster a write and a read take in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ragver.errors import SettingsInvalid

WriteOrdering: TypeAlias = Literal["weak", "medium", "strong"]
ReadConsistency: TypeAlias = Literal["majority", "quorum", "all"] | int
"""Which replicas a read asks; the number of them, or a name of Qdrant's."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the server is and how to speak to it."""

    url: str
    api_key: str | None = None
    grpc: bool = False
    grpc_port: int = 6334
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """How long to wait, and how collections are laid out over the nodes of a cluster."""

    timeout_s: float = 10.0
    """For one attempt at a request that reads."""
    write_timeout_s: float = 60.0
    """For one attempt at a request that writes."""
    shard_number: int | None = None
    replication_factor: int = 1
    write_consistency_factor: int | None = None
    """How many replicas must have applied a write; all of them unless told otherwise."""
    write_ordering: WriteOrdering = "weak"
    read_consistency: ReadConsistency | None = None
    on_disk: bool = False
    hnsw_m: int | None = None
    hnsw_ef_construct: int | None = None

    @property
    def replicas_written(self) -> int:
        return self.replication_factor if self.write_consistency_factor is None else self.write_consistency_factor


def reads_see_writes(replicas: int, written: int, read: ReadConsistency | None) -> bool:
    """Whether a read finds what enough replicas have applied: all of them, or a majority if reads ask for one.

    Other read consistencies keep what *all* asked replicas hold, so they would lose what one of them lacks.
    """
    return written >= replicas or (read == "majority" and 2 * written > replicas)


def readable(file: Path) -> Path:
    if not file.is_file():
        raise SettingsInvalid(f"RAGVER_QDRANT_CA_FILE {file} is not a file")
    return file
