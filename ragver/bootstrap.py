"""The composition root: settings in, working parts out. The only place that knows every part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from ragver.answers import Answers
from ragver.catalog import Catalog
from ragver.clock import Clock, SystemClock
from ragver.embedded.datadir import DataDir
from ragver.embedding.registry import Embedders, OpenAISettings
from ragver.erasure import Erasures
from ragver.errors import SettingsInvalid
from ragver.explaining import Explanations
from ragver.generations import Builder, Dropping, Generations
from ragver.index.port import Index
from ragver.index.qdrant_options import Connection, Options
from ragver.indexer import Indexer
from ragver.keys import Keys
from ragver.ledger import corpora, migrations
from ragver.ledger.database import Database
from ragver.liveness import Views
from ragver.recalls import Recalls
from ragver.receipts import ReceiptSigner
from ragver.reconciler.comparing import different
from ragver.reconciler.service import Reconciler
from ragver.retention import Pins, Retention
from ragver.retrieval import Limits, Retrieval
from ragver.settings import Settings
from ragver.telemetry import Metrics
from ragver.tokens import SnapshotTokens
from ragver.validation import Validation
from ragver.webhooks.delivery import Deliverer
from ragver.webhooks.registry import Webhooks
from ragver.writer import Writer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Services:
    """What the API offers to the outside, ready to use."""

    settings: Settings
    database: Database
    index: Index
    views: Views
    catalog: Catalog
    generations: Generations
    builder: Builder
    """For who runs an indexer of his own."""
    writer: Writer
    retrieval: Retrieval
    validation: Validation
    answers: Answers
    recalls: Recalls
    explanations: Explanations
    webhooks: Webhooks
    deliverer: Deliverer
    keys: Keys
    reconciler: Reconciler
    pins: Pins
    retention: Retention
    erasures: Erasures
    metrics: Metrics
    publish: Callable[[str], None]
    """Tell whoever looks at the data directory under which URL this process serves."""


@dataclass(frozen=True, slots=True)
class Stores:
    """Where ledger and index are, and the secret that goes with them."""

    database_url: str
    index: Index
    secret: str
    publish: Callable[[str, str], None]


@asynccontextmanager
async def open_services(
    settings: Settings, *, role: str, indexing: bool = True, delivering: bool = False, clock: Clock | None = None
) -> AsyncIterator[Services]:
    """Open the stores, check or migrate the schema, start the indexer; close everything at the end.

    `delivering` starts the deliverer of webhooks as well.
    `role` is what other processes are told about the holder of the data directory. Raises ``SetupError`` where
    the settings, the stores or the schema do not let ragver work.
    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        stores = await _open_stores(stack, settings, role)
        database = Database(stores.database_url, settings.database_pool_max)
        stack.push_async_callback(database.close)
        metrics = Metrics()
        embedders = Embedders(_openai(settings))
        stack.push_async_callback(embedders.aclose)
        builder = Builder(database, stores.index, embedders, different, clock)
        indexer = Indexer(database, stores.index, builder, clock, settings.indexer_poll_ms / 1000, metrics)
        services = await _assemble(settings, stores, database, embedders, clock, metrics, builder, indexer)
        stack.push_async_callback(services.views.close)
        stack.push_async_callback(services.keys.close)
        stack.push_async_callback(services.reconciler.close)
        if delivering:
            stack.push_async_callback(_stopped, asyncio.create_task(services.deliverer.run(), name="webhooks"))
        if indexing:
            dropping = Dropping(database, stores.index, clock)
            works = {
                "indexer": indexer.run,
                "dropping": dropping.run,
                "retention": services.retention.run,
                "erasures": services.erasures.run,
            }
            for name, work in works.items():
                stack.push_async_callback(_stopped, asyncio.create_task(work(), name=name))
        yield services


@asynccontextmanager
async def open_keys(settings: Settings, *, role: str) -> AsyncIterator[Keys]:
    """The keys alone, straight on the ledger: no index is opened, and no secret is needed.

    With an embedded ledger, this holds the data directory meanwhile. Raises ``SetupError`` like ``open_services``.
    """
    async with AsyncExitStack() as stack:
        if settings.database_url is None:
            url = await _open_embedded_ledger(stack, _claimed(stack, settings, role))
        else:
            url = settings.database_url
            await migrations.check(url)
        database = Database(url, pool_max=1)
        stack.push_async_callback(database.close)
        yield Keys(database, SystemClock())


async def _assemble(
    settings: Settings,
    stores: Stores,
    database: Database,
    embedders: Embedders,
    clock: Clock,
    metrics: Metrics,
    builder: Builder,
    indexer: Indexer,
) -> Services:
    views = Views(database)
    keys = Keys(database, clock)
    ledger_id = await corpora.ledger_id(database)
    tokens = SnapshotTokens(stores.secret, ledger_id)
    validation = Validation(views, tokens, clock, metrics)
    recalls = Recalls(database, views)
    limits = Limits(settings.tail_rows_max, settings.index_wait_ms_max / 1000)
    return Services(
        settings=settings,
        database=database,
        index=stores.index,
        views=views,
        catalog=Catalog(database, stores.index, views, settings.embedding_provider),
        generations=Generations(database, stores.index, clock, indexer.wake),
        builder=builder,
        writer=Writer(database, views, embedders, clock, settings.document_bytes_max, metrics, indexer.wake),
        retrieval=Retrieval(database, stores.index, views, embedders, tokens, clock, limits, metrics),
        validation=validation,
        answers=Answers(database, views, validation, clock, metrics),
        recalls=recalls,
        webhooks=Webhooks(database, views, anywhere=settings.webhooks_anywhere),
        deliverer=Deliverer(database, recalls, clock, ledger_id, metrics, anywhere=settings.webhooks_anywhere),
        explanations=Explanations(database, views),
        keys=keys,
        reconciler=Reconciler(database, stores.index, indexer.apply, clock, metrics),
        pins=Pins(database, views, tokens),
        retention=Retention(database, stores.index, clock, settings.gc_interval_s, settings.answers_kept_s, metrics),
        erasures=Erasures(
            database, stores.index, views, clock, ReceiptSigner(stores.secret, ledger_id), metrics, indexer.wake
        ),
        metrics=metrics,
        publish=lambda url: stores.publish(url, keys.operator_token),
    )


def _openai(settings: Settings) -> OpenAISettings:
    key = settings.openai_api_key
    return OpenAISettings(
        base_url=settings.openai_base_url,
        api_key=None if key is None else key.get_secret_value(),
        timeout_s=settings.embedding_timeout_s,
    )


async def _open_stores(stack: AsyncExitStack, settings: Settings, role: str) -> Stores:
    data = _claimed(stack, settings, role) if settings.database_url is None or settings.qdrant_url is None else None
    url, secret = await _open_ledger(stack, settings, data)
    index = await _open_index(stack, settings, data)
    return Stores(url, index, secret, _publish_nowhere if data is None else data.publish)


def _claimed(stack: AsyncExitStack, settings: Settings, role: str) -> DataDir:
    data = DataDir(settings.data_dir)
    data.claim(role)
    stack.callback(data.release)
    return data


async def _open_ledger(stack: AsyncExitStack, settings: Settings, data: DataDir | None) -> tuple[str, str]:
    """The ledger's URL, its schema current, and the secret that signs for it."""
    secret = None if settings.secret_key is None else settings.secret_key.get_secret_value()
    if settings.database_url is not None:
        if secret is None:
            raise SettingsInvalid(
                "RAGVER_DATABASE_URL needs RAGVER_SECRET_KEY: every process on one ledger signs with the same secret"
            )
        await migrations.check(settings.database_url)
        return settings.database_url, secret
    assert data is not None
    return await _open_embedded_ledger(stack, data), secret or data.secret_key()


async def _open_embedded_ledger(stack: AsyncExitStack, data: DataDir) -> str:
    # Imported here: a server whose ledger is elsewhere does not need the package.
    from ragver.embedded.postgres import EmbeddedPostgres

    postgres = EmbeddedPostgres(data.postgres)
    # Before the start: a start that is cancelled must not leave a server behind.
    stack.push_async_callback(asyncio.to_thread, postgres.stop)
    url = await _to_its_end(asyncio.to_thread(postgres.start))
    await migrations.migrate(url)
    return url


async def _open_index(stack: AsyncExitStack, settings: Settings, data: DataDir | None) -> Index:
    if settings.qdrant_url is None:
        assert data is not None
        # Imported here, like the embedded ledger: only who embeds the index needs the package.
        from ragver.index.edge import EdgeIndex

        edge = EdgeIndex(data.index)
        stack.push_async_callback(edge.close)
        return edge
    from ragver.index.qdrant import QdrantIndex

    qdrant = QdrantIndex.connect(_qdrant_connection(settings, settings.qdrant_url), _qdrant_options(settings))
    stack.push_async_callback(qdrant.close)
    await qdrant.check_server()
    return qdrant


def _qdrant_connection(settings: Settings, url: str) -> Connection:
    key = settings.qdrant_api_key
    return Connection(
        url=url,
        api_key=None if key is None else key.get_secret_value(),
        grpc=settings.qdrant_grpc,
        grpc_port=settings.qdrant_grpc_port,
        ca_file=settings.qdrant_ca_file,
    )


def _qdrant_options(settings: Settings) -> Options:
    return Options(
        timeout_s=settings.qdrant_timeout_s,
        write_timeout_s=settings.qdrant_write_timeout_s,
        shard_number=settings.qdrant_shard_number,
        replication_factor=settings.qdrant_replication_factor,
        write_consistency_factor=settings.qdrant_write_consistency_factor,
        write_ordering=settings.qdrant_write_ordering,
        read_consistency=settings.qdrant_read_consistency,
        on_disk=settings.qdrant_on_disk,
        hnsw_m=settings.qdrant_hnsw_m,
        hnsw_ef_construct=settings.qdrant_hnsw_ef_construct,
    )


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Wait also when cancelled: a thread goes on in any case, and what it makes has to be there to be undone."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _publish_nowhere(url: str, operator_token: str) -> None:
    """Servers with both stores elsewhere are found by their URL alone."""


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
