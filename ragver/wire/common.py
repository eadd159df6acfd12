"""What the bodies have in common: bounds, the types of their fields, and how strict they are."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from ragver.wellformed import clean_metadata, printable, well_formed

OPERATIONS_MAX = 10_000
KEY_CHARACTERS_MAX = 1_024
CHUNKS_PER_DOCUMENT_MAX = 20_000
LABELS_MAX = 256
CITATIONS_MAX = 1_000
DIMENSIONS_MAX = 8_192
RETENTION_S_MIN = 60
VERDICT_TTL_MS_MAX = 60_000


def _sorted_labels(labels: list[str]) -> list[str]:
    return sorted(set(labels))


Text = Annotated[str, BeforeValidator(well_formed)]
Line = Annotated[str, BeforeValidator(well_formed), AfterValidator(printable)]
Key = Annotated[Line, Field(min_length=1, max_length=KEY_CHARACTERS_MAX, examples=["policies/leave.md"])]
CorpusName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$", examples=["handbook"], description="the corpus's name"),
]
Label = Annotated[Line, Field(min_length=1, max_length=256, examples=["group:hr"])]
Acl = Annotated[
    list[Label],
    Field(min_length=1, max_length=LABELS_MAX, description="labels that may read; `*` is everybody"),
    AfterValidator(_sorted_labels),
]
Principals = Annotated[
    list[Label], Field(max_length=LABELS_MAX, description="the reader's labels; none given = only `*`")
]
Metadata = Annotated[dict[str, JsonValue], AfterValidator(clean_metadata)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
Vector = Annotated[list[FiniteFloat], Field(min_length=1, max_length=DIMENSIONS_MAX)]
EpochNumber = Annotated[int, Field(ge=0, le=2**53, description="the number of a commit; 0 is the empty corpus")]
FieldName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")]
ChunkIdText = Annotated[str, Field(pattern=r"^[0-9]{1,19}$", examples=["100042"])]


class Body(BaseModel):
    """Common to all bodies: nothing unknown gets in, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)
