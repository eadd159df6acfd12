"""A page about a reconciliation and those before it: one file, with nothing to fetch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from string import Template
from typing import Any

from ragver import wire
from ragver.types import DriftKind, RunState

FINDINGS_SHOWN_MAX = 500
WIDTH, HEIGHT = 880, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34
"""What the axes' words need around the bars, in pixels."""
BAR_WIDTH_MAX = 26.0
LABELS_MAX = 8

COLOURS = {
    DriftKind.MISSING: "#0072b2",
    DriftKind.ORPHAN: "#e69f00",
    DriftKind.ZOMBIE: "#d55e00",
    DriftKind.BURIED: "#56b4e9",
    DriftKind.STALE_PAYLOAD: "#cc79a7",
    DriftKind.VECTOR_MISMATCH: "#009e73",
    DriftKind.UNREACHABLE: "#999999",
    DriftKind.MISCONFIGURED: "#333333",
}
"""Okabe and Ito's, which people who confuse colours can tell apart."""

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Drift in $corpus</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p.when { color: #666; margin: .2rem 0 1.5rem; } p.advice { background: #fff4d6; padding: .6rem .9rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th { text-align: left; font-weight: 600; border-bottom: 1px solid #999; }
td, th { padding: .25rem .8rem .25rem 0; vertical-align: top; } td { border-bottom: 1px solid #eee; }
td.n, th.n { text-align: right; } code { font-size: .85em; overflow-wrap: anywhere; }
.key { display: inline-block; width: .8em; height: .8em; margin-right: .4em; }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: #555; }
</style></head><body>
<h1>Drift in $corpus</h1>
<p class="when">$summary</p>
$advice
<h2>Over time</h2>
$picture
<h2>This run</h2>
<table><tr><th>kind</th><th class="n">found</th><th class="n">repaired</th></tr>$kinds</table>
<h2>Findings</h2>
$findings
</body></html>
""")


def page(corpus: str, run: wire.Reconciliation, runs: Sequence[wire.Reconciliation]) -> str:
    """The page as HTML. `runs` are the last ones, this among them, in any order."""
    ended = sorted(
        (one for one in runs if one.state in (RunState.COMPLETE, RunState.STOPPED)), key=lambda one: one.started_at
    )
    return _PAGE.substitute(
        corpus=escape(corpus),
        summary=escape(_summary(run)),
        advice="" if run.detail is None else f'<p class="advice">{escape(run.detail)}</p>',
        picture=_picture(ended),
        kinds="".join(_kind(kind, run) for kind in DriftKind),
        findings=_findings(run),
    )


def in_words(evidence: Mapping[str, Any]) -> str:
    """What shows a finding, on one line."""
    return "; ".join(f"{name}: {_value_in_words(value)}" for name, value in evidence.items())


def _value_in_words(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case dict():
            epochs = [f"{name.removesuffix('_epoch')} {epoch}" for name, epoch in value.items() if epoch is not None]
            return ", ".join(epochs) or "nothing readable"
        case list():
            return ", ".join(map(str, value))
        case _:
            return str(value)


def _summary(run: wire.Reconciliation) -> str:
    drift = f"{run.drift:,} differences" if run.drift else "no differences"
    return (
        f"Run {run.id}, {_time(run.started_at)}, {run.state}: {drift} among {run.points:,} points at epoch "
        f"{run.epoch:,}. History: {run.history}."
    )


def _kind(kind: DriftKind, run: wire.Reconciliation) -> str:
    key = f'<span class="key" style="background:{COLOURS[kind]}"></span>'
    return (
        f'<tr><td>{key}{kind}</td><td class="n">{run.counts[kind]:,}</td><td class="n">{run.repaired[kind]:,}</td></tr>'
    )


def _findings(run: wire.Reconciliation) -> str:
    if not run.findings:
        return "<p>None.</p>"
    rows = "".join(_finding(one) for one in run.findings[:FINDINGS_SHOWN_MAX])
    more = run.drift - min(len(run.findings), FINDINGS_SHOWN_MAX)
    head = "<tr><th>kind</th><th>chunk</th><th>document</th><th>evidence</th><th>repaired</th></tr>"
    return f"<table>{head}{rows}</table>" + (f"<p>And {more:,} more.</p>" if more else "")


def _finding(one: wire.Finding) -> str:
    repaired = "yes" if one.repaired else "no"
    cells = (one.kind, one.chunk_id or "", one.document_key or "", in_words(one.evidence), repaired)
    kind, chunk, document, shown, repaired = (escape(str(cell)) for cell in cells)
    return (
        f"<tr><td>{kind}</td><td>{chunk}</td><td>{document}</td><td><code>{shown}</code></td><td>{repaired}</td></tr>"
    )


# ── the picture ─────────────────────────────────────────────────────────────────────────────────────────────


def _picture(runs: Sequence[wire.Reconciliation]) -> str:
    """A bar for each run, of what it found by kind; what it did not find has no colour in it."""
    top = _rounded_up(max((run.drift for run in runs), default=0))
    step = (WIDTH - LEFT - RIGHT) / max(1, len(runs))
    bars = "".join(_bar(run, LEFT + (place + 0.5) * step, step, top) for place, run in enumerate(runs))
    every = max(1, -(-len(runs) // LABELS_MAX))
    labels = "".join(
        _label(f"{run.started_at:%d %b}", LEFT + (place + 0.5) * step)
        for place, run in enumerate(runs)
        if place % every == 0
    )
    title = f"Differences found by each of {len(runs)} runs, by kind"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
        f"{_axis(top)}{bars}{labels}</svg><p>{_legend(runs)}</p>"
    )


def _label(text: str, x: float) -> str:
    return f'<text x="{x:.1f}" y="{HEIGHT - 14}" text-anchor="middle">{text}</text>'


def _axis(top: int) -> str:
    parts = []
    for value in sorted({0, top // 2, top}):
        y = _height(value, top)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:,}</text>')
    return "".join(parts)


def _bar(run: wire.Reconciliation, x: float, step: float, top: int) -> str:
    width = min(BAR_WIDTH_MAX, 0.7 * step)
    parts, below = [], 0
    for kind in DriftKind:
        count = run.counts[kind]
        if count:
            y = _height(below + count, top)
            height = _height(below, top) - y
            parts.append(
                f'<rect x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
                f'fill="{COLOURS[kind]}"/>'
            )
            below += count
    if not below:
        parts.append(f'<circle cx="{x:.1f}" cy="{_height(0, top):.1f}" r="{min(3.0, width / 2):.1f}" fill="#2a9d4a"/>')
    told = ", ".join(f"{run.counts[kind]:,} {kind}" for kind in DriftKind if run.counts[kind]) or "no drift"
    return f"<g><title>{escape(f'{_time(run.started_at)}: {told}')}</title>{''.join(parts)}</g>"


def _legend(runs: Sequence[wire.Reconciliation]) -> str:
    there = [kind for kind in DriftKind if any(run.counts[kind] for run in runs)]
    keys = [f'<span class="key" style="background:{COLOURS[kind]}"></span>{kind}' for kind in there]
    keys.append('<span class="key" style="background:#2a9d4a;border-radius:50%"></span>no drift')
    return " &nbsp; ".join(keys)


def _height(value: int, top: int) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top)


def _rounded_up(largest: int) -> int:
    """The next number that reads well on an axis."""
    scale = 1
    while scale * 10 < largest:
        scale *= 10
    return next((step * scale for step in (2, 4, 6, 8, 10) if step * scale >= largest), 2)


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
