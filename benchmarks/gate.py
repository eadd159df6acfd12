"""What the gate adds to a stream: to its first text and to its end, beside the same stream without it.

`python -m benchmarks.gate [--rounds 10]`; see benchmarks/README.md for what the numbers mean.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass

from benchmarks.report import keep, show
from ragver.client import AsyncClient, AsyncCorpus
from ragver.types import Policy
from tests.support.postgres import open_directory
from tests.support.server import running_server

CORPUS = "bench"
FIRST_TOKEN_S = 0.3
RATES_PER_S = (50, 150)
STREAMS = (1, 8)
SENTENCES = 12
TOKEN_CHARACTERS = 4
PAGES = 3


def answer() -> list[str]:
    """An answer in tokens: a sentence in prose, then claims with a citation each, in a paragraph and in a list."""
    claims = [
        f"This is what the handbook has to say of it in number {number} [{number % PAGES + 1}]"
        for number in range(SENTENCES)
    ]
    half = SENTENCES // 2
    text = "Here is what I found. " + " ".join(f"{claim}." for claim in claims[:half])
    text += "\n\n" + "\n".join(f"- {claim}" for claim in claims[half:]) + "\n"
    return [text[start : start + TOKEN_CHARACTERS] for start in range(0, len(text), TOKEN_CHARACTERS)]


TOKENS = answer()


async def model(rate_per_s: float) -> AsyncIterator[str]:
    """Tokens that fall due at a fixed rate, whatever their reader does."""
    started = time.perf_counter() + FIRST_TOKEN_S
    for number, token in enumerate(TOKENS):
        await asyncio.sleep(max(0.0, started + number / rate_per_s - time.perf_counter()))
        yield token


@dataclass(frozen=True, slots=True)
class Taken:
    """Milliseconds from the call of the model."""

    first_ms: float
    claim_ms: float
    """Until the first claim is there, with its full stop."""
    end_ms: float


async def read(stream: AsyncIterator[str]) -> Taken:
    started = time.perf_counter()
    first = claim = None
    text = ""
    async for piece in stream:
        text += piece
        first = first or time.perf_counter()
        claim = claim or ("." in text and time.perf_counter()) or None
    assert text == "".join(TOKENS), "the gate let out something else"
    ended = time.perf_counter()
    return Taken(*(((at or ended) - started) * 1000 for at in (first, claim, ended)))


async def both(corpus: AsyncCorpus, snapshot: str, rate_per_s: float, streams: int) -> dict[str, list[Taken]]:
    """One round: the streams without a gate, then with it."""
    bare = await asyncio.gather(*(read(model(rate_per_s)) for _ in range(streams)))
    gated = (aiter(corpus.gate(snapshot, model(rate_per_s), policy=Policy.STRICT)) for _ in range(streams))
    return {"bare": bare, "gated": await asyncio.gather(*(read(stream) for stream in gated))}


async def measure(corpus: AsyncCorpus, snapshot: str, rounds: int) -> dict[str, dict[str, Taken]]:
    """Medians over all rounds, by rate and number of streams."""
    found = {}
    for streams in STREAMS:
        for rate_per_s in RATES_PER_S:
            await both(corpus, snapshot, rate_per_s * 10, streams)
            turns = [await both(corpus, snapshot, rate_per_s, streams) for _ in range(rounds)]
            found[f"{rate_per_s}/s × {streams}"] = {
                who: median([taken for turn in turns for taken in turn[who]]) for who in ("bare", "gated")
            }
    return found


def median(taken: list[Taken]) -> Taken:
    return Taken(
        statistics.median(one.first_ms for one in taken),
        statistics.median(one.claim_ms for one in taken),
        statistics.median(one.end_ms for one in taken),
    )


async def work(corpus: AsyncCorpus, snapshot: str, rounds: int) -> dict[str, float]:
    """A model that never lets anybody wait: what the gate itself takes, in microseconds for each token."""
    instant: list[float] = []
    for _ in range(rounds):
        started = time.perf_counter()
        await read(aiter(corpus.gate(snapshot, model(1e9))))
        instant.append((time.perf_counter() - started - FIRST_TOKEN_S) / len(TOKENS) * 1e6)
    return {"us_per_token": statistics.median(instant)}


async def run(url: str, rounds: int) -> tuple[dict[str, dict[str, Taken]], dict[str, float]]:
    async with AsyncClient(url) as client:
        await client.create_corpus(CORPUS)
        corpus = client[CORPUS]
        for number in range(PAGES):
            await corpus.put(f"{number}.md", f"The handbook has this to say in page {number}.")
        found = await corpus.retrieve("What does the handbook say?", k=PAGES)
        assert len(found.hits) == PAGES
        return await measure(corpus, found.snapshot, rounds), await work(corpus, found.snapshot, rounds)


def report(found: Mapping[str, Mapping[str, Taken]], cost: Mapping[str, float]) -> None:
    rows = {}
    for name, who in found.items():
        bare, gated = who["bare"], who["gated"]
        rows[name] = (
            bare.first_ms,
            bare.claim_ms,
            gated.first_ms,
            gated.claim_ms - bare.claim_ms,
            gated.end_ms - bare.end_ms,
            gated.end_ms / bare.end_ms,
        )
    show(
        f"A stream of {len(TOKENS)} tokens, by rate and number at a time; milliseconds",
        ["first token", "its claim", "gated", "claim +", "end +", "end ×"],
        rows,
        f"{cost['us_per_token']:.0f} µs a token where the model never waits, the server's part included.",
    )
    figures = {name: {who: asdict(taken) for who, taken in by.items()} for name, by in found.items()}
    print(f"written to {keep('gate', {'streams': figures, **cost})}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    with open_directory() as directory, running_server(directory / "data") as server:
        report(*asyncio.run(run(server.url, rounds)))
