"""Who is asking, and what of a request that leaves to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ragver.errors import InvalidRequest, NotAllowed
from ragver.types import WILDCARD, Role

KEY_ACTOR = "key:"
"""What the log calls whoever came with a key begins with this, and nothing else does."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever came with an API key, or the operator, who needs none.

    - `corpora`: the only ones that they may touch; None is all.
    - `principals`: the labels that every read of theirs has; None is whatever a request names.
    """

    role: Role
    key_id: str | None = None
    name: str | None = None
    corpora: frozenset[str] | None = None
    principals: tuple[str, ...] | None = None
    _readable: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_readable", frozenset((*(self.principals or ()), WILDCARD)))

    def check_role(self, needed: Role) -> None:
        """Raise ``NotAllowed`` unless the key's role is enough."""
        if not self.role.covers(needed):
            raise NotAllowed(f"this takes a key of role {needed}, and {self.name!r} is a {self.role}")

    def check_corpus(self, corpus: str) -> None:
        """Raise ``NotAllowed`` for a corpus that the key is not for, whether or not there is one of that name."""
        if not self.may_touch(corpus):
            raise NotAllowed(f"the key {self.name!r} is not for the corpus {corpus!r}; use one that is")

    def check_whole_ledger(self) -> None:
        """Raise ``NotAllowed`` for a key that is limited to some corpora."""
        if self.corpora is not None:
            raise NotAllowed(
                f"this is about all corpora, and the key {self.name!r} is limited to some; use one for all"
            )

    def check_sees_everything(self) -> None:
        """Raise ``NotAllowed`` for a key whose principals are fixed."""
        if self.principals is not None:
            raise NotAllowed(
                f"this tells of documents whatever their access lists say, and the principals of the key {self.name!r} "
                "are fixed; use a key without"
            )

    def may_touch(self, corpus: str) -> bool:
        """Whether the key is for this corpus."""
        return self.corpora is None or corpus in self.corpora

    def reads_as(self, named: Sequence[str]) -> Sequence[str]:
        """The principals of a request that names these.

        A key with fixed ones gives them to a request that names none; one that names some of them has just those,
        and one that names any other is refused with ``NotAllowed``: nobody can claim to be somebody else.
        """
        if self.principals is None:
            return named
        foreign = sorted(set(named) - self._readable)
        if foreign:
            raise NotAllowed(
                f"the principals of the key {self.name!r} are fixed, and {', '.join(map(repr, foreign[:5]))} is not "
                "among them; leave `principals` out"
            )
        return named or self.principals

    def acts_as(self, claimed: str | None) -> str | None:
        """The actor that the log keeps: with a key always `key:NAME`, and after it whoever the request names.

        Raises ``InvalidRequest`` for a name that only a key may give.
        """
        if self.name is not None:
            return f"{KEY_ACTOR}{self.name}" + (f":{claimed}" if claimed else "")
        if claimed is not None and claimed.startswith(KEY_ACTOR):
            raise InvalidRequest(f"an `actor` that begins with {KEY_ACTOR!r} stands for an API key; name another")
        return claimed


OPERATOR = Caller(Role.ADMIN)
"""Whoever holds the data directory, or calls in the process itself."""
ANYBODY = Caller(Role.ADMIN)
"""Whoever asks a server that has no keys yet. It may do the same, but only as long as that is so."""
