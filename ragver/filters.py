"""Filters over the metadata fields that a corpus declares: parsed once, then evaluated in Python or by an index.

The meaning is Qdrant's, so that a chunk passes on the tail exactly when it would pass in the index:

* a field that is absent, null or an empty list does not exist, and no comparison holds for it;
* a list passes a comparison when one of its elements does;
* ``not`` is plain negation: it also holds where the field does not exist.

Times are compared to the microsecond, the finest step that the index and Python share.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias, assert_never

from ragver.errors import FieldInvalid, FilterInvalid
from ragver.types import FieldType

DEPTH_MAX = 16
CONDITIONS_MAX = 256
VALUES_MAX = 1_000
"""The most operands of one ``in``."""
INTEGER_MAX = 2**53
"""The index compares ranges as 64-bit floats, which hold every whole number up to here and not all beyond."""

Scalar: TypeAlias = str | int | float | bool | datetime
"""A value as it is compared: times are datetimes in UTC, numbers of float fields are floats."""


# ── the parsed form ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class All:
    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Any:
    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Filter


@dataclass(frozen=True, slots=True)
class OneOf:
    """The field holds one of the values; equality is the case of a single one."""

    field: str
    type: FieldType
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Bound:
    value: Scalar
    inclusive: bool


@dataclass(frozen=True, slots=True)
class Range:
    """The field holds a value between the bounds, of which at least one is given."""

    field: str
    type: FieldType
    lower: Bound | None = None
    upper: Bound | None = None


@dataclass(frozen=True, slots=True)
class Exists:
    field: str
    type: FieldType


Condition: TypeAlias = OneOf | Range | Exists
Filter: TypeAlias = All | Any | Not | Condition


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def timestamp(moment: datetime) -> str:
    """The one way a time is written for the index: RFC 3339 in UTC, so that equal times are equal texts."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _keyword(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise TypeError("a string of well-formed Unicode") from None
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > INTEGER_MAX:
        raise TypeError("a whole number between -2^53 and 2^53")
    return value


def _float(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise TypeError("a finite number")


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("true or false")
    return value


def _datetime(value: object) -> datetime:
    if isinstance(value, str) and _RFC_3339.fullmatch(value):
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # no such day, or beyond the years 1 to 9999: the same answer as for any other text
    raise TypeError("a time like 2026-01-31T12:00:00Z, with its zone")


_SCALARS: Mapping[FieldType, Callable[[object], Scalar]] = {
    FieldType.KEYWORD: _keyword,
    FieldType.INTEGER: _integer,
    FieldType.FLOAT: _float,
    FieldType.BOOL: _bool,
    FieldType.DATETIME: _datetime,
}
_ORDERED = (FieldType.INTEGER, FieldType.FLOAT, FieldType.DATETIME)


# ── metadata ────────────────────────────────────────────────────────────────────────────────────────────────


def check_metadata(metadata: Mapping[str, object], fields: Mapping[str, FieldType]) -> None:
    """Refuse metadata whose declared fields are not null, a value of the declared type, or a list of such."""
    for name, kind in fields.items():
        values_of(metadata, name, kind)


def projection(metadata: Mapping[str, object], fields: Mapping[str, FieldType]) -> dict[str, object]:
    """The part of `metadata` that an index needs: the declared fields that exist, in their one normal form."""
    projected: dict[str, object] = {}
    for name, kind in fields.items():
        values = [_plain(value) for value in values_of(metadata, name, kind)]
        if values:
            projected[name] = values if isinstance(metadata[name], list) else values[0]
    return projected


def values_of(metadata: Mapping[str, object], name: str, kind: FieldType) -> list[Scalar]:
    """The field's values, none if it does not exist. Raises ``FieldInvalid`` if one is not of the type."""
    held = metadata.get(name)
    if held is None:
        return []
    try:
        return [_SCALARS[kind](value) for value in (held if isinstance(held, list) else [held])]
    except TypeError as expected:
        raise FieldInvalid(
            f"metadata field `{name}` is declared {kind}: give {expected}, a list of these, or null"
        ) from None


def _plain(value: Scalar) -> str | int | float | bool:
    return timestamp(value) if isinstance(value, datetime) else value


# ── evaluation ──────────────────────────────────────────────────────────────────────────────────────────────


def matches(filter: Filter, metadata: Mapping[str, object]) -> bool:
    """Whether a document with this metadata passes; the index must decide the same."""
    match filter:
        case All(parts):
            return all(matches(part, metadata) for part in parts)
        case Any(parts):
            return any(matches(part, metadata) for part in parts)
        case Not(part):
            return not matches(part, metadata)
        case OneOf() | Range() | Exists():
            return _holds(filter, values_of(metadata, filter.field, filter.type))
        case _:
            assert_never(filter)


def _holds(condition: Condition, values: list[Scalar]) -> bool:
    match condition:
        case OneOf():
            return any(value in condition.values for value in values)
        case Range(lower=lower, upper=upper):
            return any(_above(value, lower) and _below(value, upper) for value in values)
        case Exists():
            return bool(values)
        case _:
            assert_never(condition)


# Both sides of a comparison are of the condition's one type; the type checker cannot see that.


def _above(value: Scalar, bound: Bound | None) -> bool:
    if bound is None:
        return True
    return value >= bound.value if bound.inclusive else value > bound.value  # type: ignore[operator]


def _below(value: Scalar, bound: Bound | None) -> bool:
    if bound is None:
        return True
    return value <= bound.value if bound.inclusive else value < bound.value  # type: ignore[operator]


# ── parsing ─────────────────────────────────────────────────────────────────────────────────────────────────

_COMPARISONS = frozenset({"gte", "gt", "lte", "lt"})
_FORMS = '{"all": […]}, {"any": […]}, {"not": …} or {"field": …} with "eq", "in", "exists" or a range'


def parse(source: object, fields: Mapping[str, FieldType]) -> Filter:
    """Read a filter from JSON; ``FilterInvalid`` says where it departs from the corpus' declared `fields`."""
    return _Parser(fields).filter(source, "filter", 1)


class _Parser:
    def __init__(self, fields: Mapping[str, FieldType]) -> None:
        self._fields = fields
        self._conditions = 0

    def filter(self, source: object, where: str, depth: int) -> Filter:
        self._bound_size(depth)
        if not isinstance(source, dict):
            raise FilterInvalid(f"{where}: expected an object: {_FORMS}")
        match source:
            case {"all": parts, **rest} if not rest:
                return All(self._parts(parts, f"{where}.all", depth))
            case {"any": parts, **rest} if not rest:
                return Any(self._parts(parts, f"{where}.any", depth))
            case {"not": part, **rest} if not rest:
                return Not(self.filter(part, f"{where}.not", depth + 1))
            case {"field": name, **operators}:
                return self._condition(name, operators, where)
            case _:
                raise FilterInvalid(f"{where}: the keys {_names(source)} are no filter; use {_FORMS}")

    def _bound_size(self, depth: int) -> None:
        self._conditions += 1
        if depth > DEPTH_MAX:
            raise FilterInvalid(f"the filter is nested more than {DEPTH_MAX} deep")
        if self._conditions > CONDITIONS_MAX:
            raise FilterInvalid(f"the filter has more than {CONDITIONS_MAX} conditions")

    def _parts(self, source: object, where: str, depth: int) -> tuple[Filter, ...]:
        parts = _filled_list(source, where)
        return tuple(self.filter(part, f"{where}[{place}]", depth + 1) for place, part in enumerate(parts))

    def _condition(self, name: object, operators: dict[object, object], where: str) -> Filter:
        kind = self._fields.get(name) if isinstance(name, str) else None
        if not isinstance(name, str) or kind is None:
            declared = _names(self._fields) if self._fields else "none"
            raise FilterInvalid(f"{where}: field {name!r} is not declared filterable; declared: {declared}")
        match operators:
            case {"eq": value, **rest} if not rest:
                return OneOf(name, kind, (_operand(value, kind, f"{where}.eq", name),))
            case {"in": values, **rest} if not rest:
                return OneOf(name, kind, _operands(values, kind, f"{where}.in", name))
            case {"exists": wanted, **rest} if not rest:
                return _existence(name, kind, wanted, where)
            case _ if operators and operators.keys() <= _COMPARISONS:
                return _range(name, kind, operators, where)
            case _:
                raise FilterInvalid(
                    f"{where}: field `{name}` needs exactly one of `eq`, `in`, `exists` "
                    f"or a range of `gte`, `gt`, `lte`, `lt`; got {_names(operators) or 'nothing'}"
                )


def _existence(name: str, kind: FieldType, wanted: object, where: str) -> Filter:
    if not isinstance(wanted, bool):
        raise FilterInvalid(f"{where}.exists: expected true or false")
    return Exists(name, kind) if wanted else Not(Exists(name, kind))


def _range(name: str, kind: FieldType, operators: dict[object, object], where: str) -> Range:
    if kind not in _ORDERED:
        raise FilterInvalid(f"{where}: field `{name}` is {kind}, which has no order; use `eq` or `in`")
    bounds = {
        operator: Bound(_operand(operators[operator], kind, f"{where}.{operator}", name), operator[-1] == "e")
        for operator in sorted(_COMPARISONS & operators.keys())
    }
    # An engine may look at only one bound of a side when it gets two, so the tighter one is settled here.
    # Of equal values the strict bound is the tighter, hence the order in which they are tried.
    lower = max(_present(bounds, "gt", "gte"), key=_value, default=None)
    upper = min(_present(bounds, "lt", "lte"), key=_value, default=None)
    return Range(name, kind, lower, upper)


def _present(bounds: Mapping[str, Bound], *operators: str) -> list[Bound]:
    return [bounds[operator] for operator in operators if operator in bounds]


def _value(bound: Bound) -> float | datetime:
    assert isinstance(bound.value, int | float | datetime)
    return bound.value


def _operands(source: object, kind: FieldType, where: str, name: str) -> tuple[Scalar, ...]:
    values = _filled_list(source, where)
    if len(values) > VALUES_MAX:
        raise FilterInvalid(f"{where}: more than {VALUES_MAX} values")
    return tuple(_operand(value, kind, f"{where}[{place}]", name) for place, value in enumerate(values))


def _operand(value: object, kind: FieldType, where: str, name: str) -> Scalar:
    try:
        return _SCALARS[kind](value)
    except TypeError as expected:
        raise FilterInvalid(f"{where}: field `{name}` is {kind}: compare it with {expected}") from None


def _filled_list(source: object, where: str) -> list[object]:
    if not isinstance(source, list) or not source:
        raise FilterInvalid(f"{where}: expected a list with at least one element")
    return source


def _names(keys: Iterable[object]) -> str:
    return ", ".join(f"`{key}`" for key in keys)
