"""Filters: what is accepted, what it means, and what a refusal says."""

from __future__ import annotations

import pytest

from ragver.errors import FieldInvalid, FilterInvalid
from ragver.filters import (
    CONDITIONS_MAX,
    DEPTH_MAX,
    VALUES_MAX,
    All,
    Bound,
    Not,
    OneOf,
    Range,
    check_metadata,
    matches,
    parse,
    projection,
)
from ragver.types import FieldType

FIELDS = {
    "team": FieldType.KEYWORD,
    "year": FieldType.INTEGER,
    "weight": FieldType.FLOAT,
    "public": FieldType.BOOL,
    "seen": FieldType.DATETIME,
}


def passes(source: object, metadata: dict[str, object]) -> bool:
    return matches(parse(source, FIELDS), metadata)


@pytest.mark.parametrize(
    ("source", "metadata", "expected"),
    [
        ({"field": "team", "eq": "hr"}, {"team": "hr"}, True),
        ({"field": "team", "eq": "hr"}, {"team": ["it", "hr"]}, True),
        ({"field": "team", "eq": "hr"}, {"team": "HR"}, False),
        ({"field": "team", "eq": "hr"}, {}, False),
        ({"field": "year", "in": [2024, 2025]}, {"year": 2025}, True),
        ({"field": "year", "in": [2024, 2025]}, {"year": None}, False),
        ({"field": "weight", "eq": 1}, {"weight": 1.0}, True),
        ({"field": "public", "eq": False}, {"public": False}, True),
        ({"field": "year", "gte": 2020, "lt": 2022}, {"year": 2020}, True),
        ({"field": "year", "gte": 2020, "lt": 2022}, {"year": 2022}, False),
        ({"field": "year", "gt": 2020, "lte": 2022}, {"year": 2020}, False),
        ({"field": "year", "gt": 2020, "lte": 2022}, {"year": 2022}, True),
        ({"field": "year", "gt": 5, "lt": 5}, {"year": 5}, False),
        ({"field": "seen", "eq": "2026-01-31T12:00:00Z"}, {"seen": "2026-01-31T13:00:00.000+01:00"}, True),
        ({"field": "seen", "lt": "2026-01-31T12:00:00Z"}, {"seen": "2026-01-31T12:30:00+01:00"}, True),
        ({"field": "team", "exists": True}, {"team": "hr"}, True),
        ({"field": "team", "exists": True}, {"team": []}, False),
        ({"field": "team", "exists": False}, {"team": None}, True),
        ({"field": "public", "exists": True}, {"public": False}, True),
        ({"not": {"field": "team", "eq": "hr"}}, {}, True),
        ({"not": {"field": "team", "eq": "hr"}}, {"team": ["it", "hr"]}, False),
        ({"all": [{"field": "team", "eq": "hr"}, {"field": "year", "gt": 1}]}, {"team": "hr"}, False),
        ({"any": [{"field": "team", "eq": "hr"}, {"field": "year", "gt": 1}]}, {"team": "hr"}, True),
    ],
)
def test_a_filter_means_what_the_contract_says(source: object, metadata: dict[str, object], expected: bool) -> None:
    assert expected == passes(source, metadata)


def test_one_element_of_a_list_must_satisfy_the_whole_range() -> None:
    """Two elements that each satisfy one bound do not make the range hold."""
    assert not passes({"field": "year", "gt": 3, "lt": 7}, {"year": [1, 9]})
    assert passes({"field": "year", "gt": 3, "lt": 7}, {"year": [1, 5, 9]})


def test_of_two_bounds_on_one_side_the_tighter_is_kept() -> None:
    assert Range("year", FieldType.INTEGER, lower=Bound(4, False)) == parse(
        {"field": "year", "gt": 4, "gte": 4}, FIELDS
    )
    assert Range("year", FieldType.INTEGER, lower=Bound(5, True), upper=Bound(8, True)) == parse(
        {"field": "year", "gt": 4, "gte": 5, "lt": 9, "lte": 8}, FIELDS
    )


def test_the_parsed_form_is_a_value() -> None:
    assert All((Not(OneOf("team", FieldType.KEYWORD, ("hr",))),)) == parse(
        {"all": [{"not": {"field": "team", "eq": "hr"}}]}, FIELDS
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ([], "filter: expected an object"),
        ({}, "are no filter"),
        ({"all": []}, "filter.all: expected a list with at least one element"),
        ({"any": {}}, "filter.any: expected a list"),
        ({"all": [{"field": "team", "eq": "a"}], "x": 1}, "`all`, `x`"),
        ({"all": [{"field": "team", "eq": "a"}, {"field": "no", "eq": 1}]}, "filter.all[1]: field 'no'"),
        ({"field": "colour", "eq": "red"}, "declared: `team`, `year`, `weight`, `public`, `seen`"),
        ({"field": ["team"], "eq": "red"}, "is not declared filterable"),
        ({"field": "team"}, "got nothing"),
        ({"field": "team", "eq": "a", "in": ["a"]}, "exactly one of"),
        ({"field": "team", "like": "a"}, "got `like`"),
        ({"field": "team", "eq": 1}, "filter.eq: field `team` is keyword: compare it with a string"),
        ({"field": "team", "eq": "\ud800"}, "well-formed Unicode"),
        ({"field": "team", "in": []}, "filter.in: expected a list"),
        ({"field": "team", "in": ["a", 2]}, "filter.in[1]"),
        ({"field": "team", "gt": "a"}, "has no order"),
        ({"field": "public", "gte": True}, "has no order"),
        ({"field": "public", "eq": 1}, "true or false"),
        ({"field": "year", "eq": True}, "a whole number"),
        ({"field": "year", "gt": 1.5}, "a whole number"),
        ({"field": "year", "eq": 2**53 + 1}, "between -2^53 and 2^53"),
        ({"field": "weight", "eq": float("nan")}, "a finite number"),
        ({"field": "weight", "lt": 10**400}, "a finite number"),
        ({"field": "seen", "eq": "2026-01-31T12:00:00"}, "with its zone"),
        ({"field": "seen", "eq": "2026-02-30T12:00:00Z"}, "with its zone"),
        ({"field": "seen", "eq": "0001-01-01T00:00:00+14:00"}, "with its zone"),
        ({"field": "team", "exists": 1}, "filter.exists: expected true or false"),
        ({"field": "team", "in": ["a"] * (VALUES_MAX + 1)}, "more than 1000 values"),
        ({"all": [{"field": "team", "eq": "a"}] * CONDITIONS_MAX}, "more than 256 conditions"),
    ],
)
def test_a_refusal_says_where_and_why(source: object, said: str) -> None:
    with pytest.raises(FilterInvalid) as refusal:
        parse(source, FIELDS)

    assert said in refusal.value.detail


def test_nesting_is_bounded() -> None:
    def nested(depth: int) -> object:
        return {"field": "team", "eq": "a"} if depth == 1 else {"not": nested(depth - 1)}

    parse(nested(DEPTH_MAX), FIELDS)
    with pytest.raises(FilterInvalid, match="nested more than 16 deep"):
        parse(nested(DEPTH_MAX + 1), FIELDS)


def test_a_corpus_without_declared_fields_says_so() -> None:
    with pytest.raises(FilterInvalid, match="declared: none"):
        parse({"field": "team", "eq": "hr"}, {})


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"team": 1}, "`team` is declared keyword: give a string"),
        ({"team": {"name": "hr"}}, "`team` is declared keyword"),
        ({"team": ["hr", None]}, "`team` is declared keyword"),
        ({"year": True}, "`year` is declared integer"),
        ({"year": 2.0}, "`year` is declared integer"),
        ({"year": -(2**53) - 1}, "between -2^53 and 2^53"),
        ({"weight": "1"}, "a finite number"),
        ({"public": 0}, "true or false"),
        ({"seen": "yesterday"}, "a time like"),
        ({"seen": ["2026-01-01T00:00:00Z", "2026-01-01"]}, "a time like"),
    ],
)
def test_metadata_of_another_type_is_refused(metadata: dict[str, object], said: str) -> None:
    with pytest.raises(FieldInvalid) as refusal:
        check_metadata(metadata, FIELDS)

    assert said in refusal.value.detail


def test_undeclared_metadata_is_nobodys_business() -> None:
    check_metadata({"anything": {"goes": [1, "two", None]}, "team": None, "year": []}, FIELDS)


def test_the_projection_holds_declared_fields_in_normal_form() -> None:
    metadata = {
        "team": ["hr"],
        "year": None,
        "weight": 2,
        "public": [],
        "seen": "2026-01-31t13:00:00.1234567+01:00",
        "note": "not declared",
    }

    projected = projection(metadata, FIELDS)

    expected = {"team": ["hr"], "weight": 2.0, "seen": "2026-01-31T12:00:00.123456Z"}
    assert expected == projected
    assert isinstance(projected["weight"], float)
