"""Does a text say what a quote claims? Typography may differ, words and digits may not."""

from __future__ import annotations

import re
import unicodedata

_INVISIBLE = "\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff"
_FOLDED = {
    "'": "‘’‚‛′‹›´",
    '"': "“”„‟″«»",
    "-": "‐‑‒–—―−",
    "...": "…",
}
_PLAIN = str.maketrans(
    dict.fromkeys(_INVISIBLE, "") | {typographic: plain for plain, group in _FOLDED.items() for typographic in group}
)

# Scripts that put no spaces between words; there each character may begin or end a quote.
_UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
    r"\U00020000-\U0003ffff"
)
_WORD = rf"[^\W_{_UNSPACED}]"
# A number is one token with its decimals and thousands: "3" is no part of "3.5".
_TOKEN = re.compile(rf"{_WORD}++(?:(?<=\d)[.,](?=\d){_WORD}++)*+|.", re.DOTALL)
_BETWEEN = "\x00"


def contains(text: str, quote: str) -> bool:
    """Whether `quote` stands in `text` word for word, after both are normalised. An empty quote stands nowhere."""
    wanted = normalise(quote)
    given = normalise(text)
    return bool(wanted) and wanted in given and _tokens(wanted) in _tokens(given)


def normalise(text: str) -> str:
    """`text` in NFKC with plain quotes, dashes and dots, nothing invisible, and single spaces between words."""
    # Before NFKC, since it takes some quotation marks apart; after it, since it makes others.
    plain = unicodedata.normalize("NFKC", text.translate(_PLAIN)).translate(_PLAIN)
    return " ".join(plain.split())


def _tokens(text: str) -> str:
    """A text whose substrings, ends included, are runs of whole tokens."""
    return _BETWEEN + _BETWEEN.join(_TOKEN.findall(text)) + _BETWEEN
