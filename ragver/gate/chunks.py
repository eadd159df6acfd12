"""The text in the chunks of the models' SDKs, told apart by their shapes: none of the SDKs is imported.

Known are strings; OpenAI's chat completion chunks, Responses events and the events of its stream helpers;
Anthropic's message events, raw and from the helper; LangChain's message chunks; and all of these as parsed JSON.
"""

from __future__ import annotations

from ragver.citations.shapes import each, get
from ragver.errors import ModelFailed

_OPENAI_TEXT = {"response.output_text.delta", "response.refusal.delta", "content.delta", "refusal.delta"}
_FAILURES = {"error", "response.failed"}
_LANGCHAIN = {"AIMessageChunk", "ai"}
# Events that hold no text of their own. The helpers' `text` and `chunk` repeat what another event tells.
_NO_TEXT = {
    *("message_start", "message_delta", "message_stop", "content_block_stop", "ping"),
    *("text", "thinking", "signature", "citation", "input_json", "compaction", "parsed"),
    *("chunk", "content.done", "refusal.done"),
}
_NO_TEXT_PREFIXES = ("response.", "tool_calls.", "logprobs.")


def text_of(chunk: object) -> str:
    """The text that a chunk adds; empty for chunks about something else.

    Raises ``ModelFailed`` when the chunk says that the model failed, and ``TypeError`` for a chunk of an unknown
    shape: text must not get lost.
    """
    if isinstance(chunk, str):
        return chunk
    if get(chunk, "choices") is not None:
        return "".join(map(_of_choice, each(chunk, "choices")))
    kind = get(chunk, "type")
    if kind in _LANGCHAIN:
        return _of_content(get(chunk, "content"))
    if isinstance(kind, str):
        return _of_event(kind, chunk)
    raise _unknown(chunk)


def _of_choice(choice: object) -> str:
    if get(choice, "index"):
        raise TypeError("several choices in one stream cannot be told apart; ask the model for one (n=1)")
    delta = get(choice, "delta")
    return (get(delta, "content") or "") + (get(delta, "refusal") or "")


def _of_event(kind: str, event: object) -> str:
    if kind in _OPENAI_TEXT:
        return str(get(event, "delta"))
    if kind == "content_block_delta":
        return _of_block(get(event, "delta"), "text_delta")
    if kind == "content_block_start":
        return _of_block(get(event, "content_block"), "text")
    if kind in _FAILURES:
        raise ModelFailed(f"the model's stream reports a failure: {_failure(event)}")
    if kind in _NO_TEXT or kind.startswith(_NO_TEXT_PREFIXES):
        return ""
    raise _unknown(event)


def _of_block(block: object, kind: str) -> str:
    return str(get(block, "text") or "") if get(block, "type") == kind else ""


def _of_content(content: object) -> str:
    """LangChain's: a string, or a list of strings and content blocks."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _unknown(content)
    return "".join(block if isinstance(block, str) else _of_block(block, "text") for block in content)


def _failure(event: object) -> str:
    error = get(event, "error") or get(get(event, "response"), "error") or event
    return str(get(error, "message") or error)[:200]


def _unknown(chunk: object) -> TypeError:
    return TypeError(
        f"no text is known in a {type(chunk).__name__} ({str(chunk)[:100]}); hand the gate an iterator of strings"
    )
