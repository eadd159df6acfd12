"""Settings from the environment (``RAGVER_…``). Read once, by the composition root."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from ragver.errors import SettingsInvalid

WriteOrdering: TypeAlias = Literal["weak", "medium", "strong"]
ReadConsistency: TypeAlias = Literal["majority", "quorum", "all"] | Annotated[int, Field(gt=0)]


class Settings(BaseSettings):
    """With no URLs set, both stores are embedded in ``data_dir``."""

    model_config = SettingsConfigDict(env_prefix="RAGVER_", extra="ignore")

    database_url: str | None = Field(None, description="PostgreSQL 15 or newer; unset: embedded")
    qdrant_url: str | None = Field(None, description="Qdrant server; unset: embedded")
    qdrant_api_key: SecretStr | None = Field(None, description="sent with every request to the Qdrant server")
    data_dir: Path = Field(Path(".ragver"), description="where the embedded stores and the generated secret live")
    secret_key: SecretStr | None = Field(None, description="signs snapshot tokens; needed when the ledger is a URL")
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    allow_unauthenticated: bool = Field(False, description="listen beyond loopback though there is no API key")

    document_bytes_max: int = Field(10 * 2**20, gt=0, description="UTF-8 bytes of one document's text")
    request_bytes_max: int = Field(64 * 2**20, gt=0, description="bytes of one request body")
    database_pool_max: int = Field(16, gt=0, description="connections to the ledger per process")
    indexer_poll_ms: int = Field(200, gt=0, description="how often the indexer looks for other processes' commits")
    index_wait_ms_max: int = Field(10_000, ge=0, description="how long a read waits when the tail is too long")
    tail_rows_max: int = Field(50_000, gt=0, description="chunks a strong read scores beside the index")

    answers_kept_s: int = Field(
        90 * 86_400, gt=0, description="how long a recorded answer is kept after its last validation"
    )
    webhooks_deliver: bool = Field(True, description="this process may deliver webhooks; one that may does")
    webhooks_anywhere: bool = Field(False, description="webhooks may go by plain http to other machines")
    gc_interval_s: float = Field(300.0, gt=0, description="how often what has passed the horizon is removed")

    embedding_provider: str = Field("hashing", description="what a corpus gets that names none")
    openai_base_url: str = "https://api.openai.com/v1"
    openai_api_key: SecretStr | None = None
    embedding_timeout_s: float = Field(30.0, gt=0)

    qdrant_grpc: bool = Field(False, description="speak gRPC with the Qdrant server, not REST")
    qdrant_grpc_port: int = Field(6334, gt=0, le=65535)
    qdrant_ca_file: Path | None = Field(None, description="PEM certificates that an https URL is checked against")
    qdrant_timeout_s: float = Field(10.0, gt=0, description="one attempt at a search or another read")
    qdrant_write_timeout_s: float = Field(60.0, gt=0, description="one attempt at a write, which waits to be applied")
    qdrant_shard_number: int | None = Field(None, gt=0, description="shards of a new collection; unset: one a node")
    qdrant_replication_factor: int = Field(1, gt=0, description="copies of each shard of a new collection")
    qdrant_write_consistency_factor: int | None = Field(
        None, gt=0, description="replicas that must apply a write before it counts; unset: all"
    )
    qdrant_write_ordering: WriteOrdering = Field("weak", description="weak, medium or strong, as Qdrant means them")
    qdrant_read_consistency: ReadConsistency | None = Field(
        None, description="replicas that a read asks: a number, majority, quorum or all; unset: any one"
    )
    qdrant_on_disk: bool = Field(False, description="keep the vectors of new collections on disk, not in memory")
    qdrant_hnsw_m: int | None = Field(None, gt=0, description="links per point in a new collection's graph")
    qdrant_hnsw_ef_construct: int | None = Field(None, gt=3, description="candidates looked at to find those links")


def read_settings(data_dir: Path | None, **told: Any) -> Settings:
    """Settings from the environment; what is told here goes before it. Raises ``SettingsInvalid``."""
    unknown = [name for name in told if name not in Settings.model_fields]
    if unknown:
        raise SettingsInvalid(f"there is no setting {', '.join(unknown)}; they are listed in ragver/settings.py")
    if data_dir is not None:
        told["data_dir"] = data_dir
    try:
        return Settings(**told)
    except ValidationError as error:
        found = "; ".join(f"RAGVER_{'_'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in error.errors())
        raise SettingsInvalid(found) from error
