"""Characters that a stream has torn apart."""

from __future__ import annotations


class Mended:
    """Joins the halves of surrogate pairs; half a pair that stays alone becomes U+FFFD, as decoders do it."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        """The text with its characters whole; a half at its end waits for the other."""
        text = self._half + text
        self._half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return _whole(text[: len(text) - len(self._half)])

    def end(self) -> str:
        """What still waits."""
        half, self._half = self._half, ""
        return _whole(half)


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
