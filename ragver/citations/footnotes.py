"""Footnotes: ``[^leave]`` in the text, and ``[^leave]: policies/leave.md`` below.

A definition names its source by id or URL, anywhere in it. Where it does not, or is missing, a label that is a number
is the place of a document among the sources.
"""

from __future__ import annotations

import re

from ragver.citations import blocks, markers
from ragver.citations.blocks import Kind
from ragver.citations.cited import NOWHERE, Citation, Cited, Sources
from ragver.citations.numbered import target_of

_REFERENCE = re.compile(r"\[\^([^\]\s]++)\]")
_WORD = re.compile(r"[^\s()<>\[\]\"'“”,;]+")
_ENDS = ".:!?*_`"


def parse(answer: str, sources: Sources) -> Cited:
    """A text with footnotes. Markers that are none, like ``[1]``, are not read."""
    targets: dict[str, tuple[int, ...]] = {}
    definitions: list[tuple[int, int, str]] = []
    references: list[tuple[int, int, str]] = []
    for block in blocks.split(answer):
        start = block.start
        if block.kind is Kind.FOOTNOTE and (label := _REFERENCE.search(answer, start, block.end)) is not None:
            definitions.append((*label.span(), label[1]))
            targets[label[1]] = _defined(answer[label.end() : block.end], sources)
            start = label.end()
        references += [(*it.span(), it[1]) for it in _outside_code(answer, block, start)]
    named = {label for _, _, label in references}
    places = sorted(references + [place for place in definitions if place[2] in named])
    return Cited(
        answer,
        tuple(Citation(start, end, targets.get(label) or _numbered(label, sources)) for start, end, label in places),
    )


def _outside_code(text: str, block: blocks.Block, start: int) -> list[re.Match[str]]:
    if block.kind is Kind.CODE:
        return []
    code = [atom for atom in markers.atoms(text, block) if not atom.targets]
    return [
        match
        for match in _REFERENCE.finditer(text, start, block.end)
        if not any(atom.start <= match.start() < atom.end for atom in code)
    ]


def _defined(definition: str, sources: Sources) -> tuple[int, ...]:
    """The sources that a definition names."""
    words = (word.strip(_ENDS) for word in _WORD.findall(definition))
    found = (sources.named(word) for word in (definition.strip(), *words))
    return tuple(dict.fromkeys(target for target in found if target is not None))


def _numbered(label: str, sources: Sources) -> tuple[int, ...]:
    digits = label.isdecimal() and len(label) <= markers.DIGITS_MAX
    return (target_of(int(label), sources) if digits else NOWHERE,)
