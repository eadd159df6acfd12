"""API keys: made, listed, revoked, and looked at in front of every request.

A key is ``rgv_ID_SECRET``. The id finds it; the ledger keeps SHA-256 of the whole. A slow hash protects secrets that
people choose and could be guessed; this one has 256 random bits, so there is nothing to guess and a fast hash, once
a request, is right.

Every process keeps the good keys in memory and looks no request's key up in the ledger. What it knows is at most
``KEYS_AGE_S_MAX`` old: a request that finds it older waits for one read, which all who wait at that moment share. So
a revocation takes effect at once in the process that made it, and within that time in every other; and a ledger that
is away is an error, not a pass.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

from ragver import wire
from ragver.caller import ANYBODY, OPERATOR, Caller
from ragver.clock import Clock
from ragver.coalesce import Coalesced
from ragver.errors import KeyInvalid, KeyMissing, RateLimited, Unavailable
from ragver.ledger import keys as stored
from ragver.ledger.database import Database
from ragver.ledger.keys import StoredKey
from ragver.rate import Bucket
from ragver.telemetry import logger

KEYS_AGE_S_MAX = 1.0
"""How long after its revocation a key may still be taken by another process."""
USE_NOTED_EVERY_S = 60.0
ID_BYTES = 6
SECRET_BYTES = 32
PREFIX = "rgv_"
_KEY = re.compile(rf"{PREFIX}(?P<id>[0-9a-f]{{{2 * ID_BYTES}}})_[0-9a-f]{{{2 * SECRET_BYTES}}}")


@dataclass(frozen=True, slots=True)
class _Known:
    """A key as this process has last read it."""

    hash: bytes = field(repr=False)
    caller: Caller
    rate_per_s: float | None
    used_this_minute: bool


@dataclass(frozen=True, slots=True)
class _Ring:
    """The good keys by id, as of a read that began at `read_at`."""

    read_at: float
    guarded: bool
    keys: Mapping[str, _Known]


class Keys:
    """The keys of one ledger."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._ring: _Ring | None = None
        self._fresh = Coalesced(self._read)
        self._buckets: dict[str, Bucket] = {}
        self._use_noted_at: dict[str, float] = {}
        self._notes: set[asyncio.Task[None]] = set()

    @cached_property
    def operator_token(self) -> str:
        """What makes a request to this process the operator's: for whoever can read the data directory."""
        return f"rgvop_{secrets.token_hex(SECRET_BYTES)}"

    async def create_key(self, wanted: wire.KeyCreate) -> wire.KeyCreated:
        """Make a key; its secret is in this answer and nowhere else. Raises ``KeyExists`` or ``InvalidRequest``."""
        key_id = secrets.token_hex(ID_BYTES)
        secret = f"{PREFIX}{key_id}_{secrets.token_hex(SECRET_BYTES)}"
        made = await stored.insert(self._database, key_id, _hash(secret), wanted)
        await self._renew()
        logger.info("key_created", id=key_id, name=wanted.name, role=wanted.role.value)
        return wire.KeyCreated(**made.model_dump(), secret=secret)

    async def keys(self) -> list[wire.ApiKey]:
        """Every key there has been, oldest first."""
        return await stored.all_of(self._database)

    async def revoke_key(self, key_id: str) -> wire.ApiKey:
        """End a key for good: here at once, elsewhere within ``KEYS_AGE_S_MAX``. Raises ``KeyNotFound``."""
        revoked = await stored.revoke(self._database, key_id)
        await self._renew()
        logger.info("key_revoked", id=key_id, name=revoked.name)
        return revoked

    async def guarded(self) -> bool:
        """Whether a key is needed: from the first one on, for ever."""
        return (await self._current()).guarded

    async def admit(self, presented: str | None, *, ledger_may_be_away: bool = False) -> Caller:
        """Who it is that presents this key.

        Raises ``KeyMissing``, ``KeyInvalid`` or ``RateLimited``, and ``LedgerUnavailable`` unless it may be away:
        then what was last known counts.
        """
        if presented is not None and hmac.compare_digest(presented.encode(), self.operator_token.encode()):
            return OPERATOR
        ring = await self._current(ledger_may_be_away=ledger_may_be_away)
        if not ring.guarded and not (presented or "").startswith(PREFIX):
            # Credentials of another kind are somebody else's, say, a proxy's. A key of ours is looked at even here:
            # whoever has one expects to be known, and may have come to the wrong ledger.
            return ANYBODY
        if presented is None:
            raise KeyMissing("an API key is needed here: send it as `Authorization: Bearer rgv_…`")
        known = _verified(ring, presented)
        key_id = known.caller.key_id
        assert key_id is not None
        self._count(key_id, known)
        self._note_use(key_id, known)
        return known.caller

    async def still_good(self, caller: Caller) -> bool:
        """Whether whoever was admitted a while ago still would be; for answers that stay open."""
        if caller is OPERATOR:
            return True
        ring = await self._current()
        return not ring.guarded if caller.key_id is None else caller.key_id in ring.keys

    async def close(self) -> None:
        """Let reads end that are on their way, and notes of use arrive."""
        await self._fresh.close()
        await asyncio.gather(*self._notes)

    async def _current(self, *, ledger_may_be_away: bool = False) -> _Ring:
        ring = self._ring
        if ring is not None and self._clock.monotonic() - ring.read_at <= KEYS_AGE_S_MAX:
            return ring
        try:
            return await self._fresh()
        except Unavailable:
            if ring is None or not ledger_may_be_away:
                raise
            return ring

    async def _renew(self) -> None:
        """Know of one's own change at once. If the ledger goes away just now, the bound holds as ever."""
        with suppress(Unavailable):
            await self._fresh()

    async def _read(self) -> _Ring:
        read_at = self._clock.monotonic()
        living = await stored.living(self._database)
        self._ring = _Ring(read_at, living.guarded, {key.id: _known(key) for key in living.keys})
        self._forget_all_but(self._ring.keys)
        return self._ring

    def _forget_all_but(self, living: Mapping[str, _Known]) -> None:
        for kept in (self._buckets, self._use_noted_at):
            for key_id in kept.keys() - living.keys():
                del kept[key_id]

    def _count(self, key_id: str, known: _Known) -> None:
        if known.rate_per_s is None:
            return
        now = self._clock.monotonic()
        bucket = self._buckets.get(key_id)
        if bucket is None or bucket.rate_per_s != known.rate_per_s:
            bucket = self._buckets[key_id] = Bucket(known.rate_per_s, now)
        wait_s = bucket.take(now)
        if wait_s > 0:
            allowed = f"the key {known.caller.name!r} may ask {known.rate_per_s:g} times a second"
            raise RateLimited(f"{allowed}; wait {wait_s:.3g} s", wait_s)

    def _note_use(self, key_id: str, known: _Known) -> None:
        """Once a minute and key, beside the request and not in it."""
        now = self._clock.monotonic()
        noted_at = self._use_noted_at.get(key_id)
        if noted_at is not None and now - noted_at < USE_NOTED_EVERY_S:
            return
        self._use_noted_at[key_id] = now
        if not known.used_this_minute:
            note = asyncio.create_task(self._noted(key_id))
            self._notes.add(note)
            note.add_done_callback(self._notes.discard)

    async def _noted(self, key_id: str) -> None:
        try:
            await stored.note_use(self._database, key_id)
        except Unavailable as error:
            # Whoever was let in stays in; the time of use is for people to look at.
            logger.warning("key_use_not_noted", id=key_id, detail=error.detail)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _known(key: StoredKey) -> _Known:
    caller = Caller(key.role, key.id, key.name, key.corpora, key.principals)
    return _Known(key.hash, caller, key.rate_per_s, key.used_this_minute)


def _verified(ring: _Ring, presented: str) -> _Known:
    """The key that was presented. What is wrong with it is not said: there is nothing to learn from a guess."""
    form = _KEY.fullmatch(presented)
    known = ring.keys.get(form["id"]) if form else None
    if known is None or not hmac.compare_digest(known.hash, _hash(presented)):
        raise KeyInvalid(
            "this API key is unknown, revoked or expired; `ragver keys list` shows which there are, "
            "and `ragver keys create` makes another"
        )
    return known
