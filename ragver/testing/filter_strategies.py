"""Hypothesis strategies for metadata and filters, out of small pools so that filters often hit."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ragver.filters import INTEGER_MAX
from ragver.types import FieldType

FIELDS: Mapping[str, FieldType] = {
    "team": FieldType.KEYWORD,
    "year": FieldType.INTEGER,
    "weight": FieldType.FLOAT,
    "public": FieldType.BOOL,
    "last-seen": FieldType.DATETIME,
}

_POOLS: Mapping[FieldType, SearchStrategy[object]] = {
    FieldType.KEYWORD: st.sampled_from(["", "hr", "HR", "it", "k\u00f6ln", "ko\u0308ln", "1", "true", "a.b", "🜁"]),
    FieldType.INTEGER: st.sampled_from([-INTEGER_MAX, -1, 0, 1, 2, 7, INTEGER_MAX - 1, INTEGER_MAX]),
    FieldType.FLOAT: st.sampled_from([-1e308, -1, -0.0, 0.0, 5e-324, 0.3, 0.1 + 0.2, 1, 1.5, INTEGER_MAX]),
    FieldType.BOOL: st.booleans(),
    FieldType.DATETIME: st.sampled_from(
        [
            "0001-01-01T00:00:00Z",
            "1969-12-31T23:59:59.999999Z",
            "2026-01-31T12:00:00Z",
            "2026-01-31T13:00:00+01:00",
            "2026-01-31t12:00:00.000001z",
            "2026-01-31 07:00:00.0000019-05:00",
            "9999-12-31T23:59:59.999999Z",
        ]
    ),
}


def metadata() -> SearchStrategy[dict[str, object]]:
    """Documents' metadata: each declared field absent, null, a value or a list; and one that is not declared."""
    fields: dict[str, SearchStrategy[object]] = {
        name: st.none() | _POOLS[kind] | st.lists(_POOLS[kind], max_size=3) for name, kind in FIELDS.items()
    }
    return st.fixed_dictionaries({}, optional={**fields, "note": st.integers()})


def filters() -> SearchStrategy[dict[str, object]]:
    """Filters as JSON, of every form and nested a few deep."""
    conditions = st.sampled_from(list(FIELDS.items())).flatmap(lambda field: _conditions(*field))
    return st.recursive(conditions, _combinations, max_leaves=6)


def _combinations(parts: SearchStrategy[dict[str, object]]) -> SearchStrategy[dict[str, object]]:
    several = st.lists(parts, min_size=1, max_size=3)
    return st.one_of(
        st.fixed_dictionaries({"all": several}),
        st.fixed_dictionaries({"any": several}),
        st.fixed_dictionaries({"not": parts}),
    )


def _conditions(name: str, kind: FieldType) -> SearchStrategy[dict[str, object]]:
    field, value = st.just(name), _POOLS[kind]
    forms: list[SearchStrategy[dict[str, object]]] = [
        st.fixed_dictionaries({"field": field, "eq": value}),
        st.fixed_dictionaries({"field": field, "in": st.lists(value, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"field": field, "exists": st.booleans()}),
    ]
    if kind in (FieldType.INTEGER, FieldType.FLOAT, FieldType.DATETIME):
        bounds = st.fixed_dictionaries({"field": field}, optional=dict.fromkeys(("gte", "gt", "lte", "lt"), value))
        forms.append(bounds.filter(lambda condition: len(condition) > 1))
    return st.one_of(forms)
