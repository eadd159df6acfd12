"""Eight answers at a time are streamed while the documents they rest on change; who was shown what no longer stood?

`python -m benchmarks.soak [--minutes 10] [--without lease|validation]`. A server in a process of its own, the whole
recorded history with deletes, cuts and changes of access beside it, ten fenced changes a second. Every sentence that a
stand-in for a model writes goes to a reader behind the gate and to one without. Exit status 1 if the gate let through
what it should not have, or, with something switched off, if that did not show.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any

from benchmarks.report import keep, show
from ragver.client import AsyncClient
from tests.support.postgres import open_directory
from tests.support.recorded import RecordedHistory
from tests.support.server import running_server
from tests.support.soak import SWITCHED_OFF, Findings, Plan, soak

WRONGS_SHOWN_MAX = 10


async def run(url: str, plan: Plan, off: dict[str, Any]) -> Findings:
    history = RecordedHistory()
    async with AsyncClient(url) as client:
        return await soak(client, history.records, [one.question for one in history.questions()], plan, **off)


def report(findings: Findings, plan: Plan, without: str | None) -> None:
    changes = ", ".join(f"{number} {name}" for name, number in findings.changes.most_common())
    streams = ", ".join(f"{number} {ended}" for ended, number in findings.streams.most_common())
    rows = {
        "through the gate": (len(findings.gated), len(findings.gated_wrong)),
        "past it": (len(findings.bare), len(findings.bare_wrong)),
    }
    show(
        f"What readers were shown in {findings.seconds:.0f} s, {plan.streams} streams at a time"
        + (f", the gate without {without}" if without else ""),
        ["sentences", "on what was gone when its fence had returned"],
        rows,
        f"Fenced changes: {changes}. Gated streams: {streams}. Seed {plan.seed}.",
    )
    for wrong in findings.gated_wrong[:WRONGS_SHOWN_MAX]:
        print(wrong)
    print(f"written to {keep('soak', {'without': without, **findings.figures()})}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--without", choices=SWITCHED_OFF, help="switch a part of the gate off, to see that it shows")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    plan = Plan(seconds=arguments.minutes * 60, seed=arguments.seed)
    with open_directory() as directory, running_server(directory / "data") as server:
        findings = asyncio.run(run(server.url, plan, SWITCHED_OFF.get(arguments.without, {})))
    report(findings, plan, arguments.without)
    return int(bool(findings.gated_wrong) != bool(arguments.without))


if __name__ == "__main__":
    sys.exit(main())
