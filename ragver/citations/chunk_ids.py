"""Markers with the ids that the sources were given: ``[leave-2]``, ``[doc:leave-2, doc:cake]``, ``【leave-2】``.

Brackets in which at least one known id stands are a marker, and so are those with a prefix like ``chunk:``; whatever
else stands there points nowhere. A number that is no id is read as in ``numbered``.
"""

from __future__ import annotations

import re

from ragver.citations import blocks, markers
from ragver.citations.blocks import Kind
from ragver.citations.cited import NOWHERE, Citation, Cited, Sources
from ragver.citations.numbered import target_of

_BRACKETS = re.compile(r"\[([^\[\]\n]{1,400})\]|【([^【】\n]{1,400})】")
_PREFIX = re.compile(r"\s*+(?:chunk|doc(?:ument)?|source|ref|id)s?\s*+[:#=]\s*+", re.IGNORECASE)


def parse(answer: str, sources: Sources) -> Cited:
    """A text with ids in brackets."""
    citations = []
    for block in blocks.split(answer):
        code = [atom for atom in markers.atoms(answer, block) if not atom.targets]
        for match in _BRACKETS.finditer(answer, block.start, block.end) if block.kind is not Kind.CODE else ():
            targets = _targets(match[1] or match[2], sources)
            if targets and not any(atom.start <= match.start() < atom.end for atom in code):
                citations.append(Citation(*match.span(), targets))
    return Cited(answer, tuple(citations))


def _targets(listed: str, sources: Sources) -> tuple[int, ...]:
    whole = sources.named(listed.strip())
    if whole is not None:
        return (whole,)
    parts = re.split(r"[,;]", listed)
    found = [_target(part, sources) for part in parts]
    if all(target is None for target in found) and not any(map(_PREFIX.match, parts)):
        return ()
    return tuple(NOWHERE if target is None else target for target in found)


def _target(part: str, sources: Sources) -> int | None:
    name = _PREFIX.sub("", part, count=1).strip()
    target = sources.named(name)
    if target is None and name.isdecimal() and len(name) <= markers.DIGITS_MAX:
        return target_of(int(name), sources)
    return target
