"""Signatures of webhooks, as the Standard Webhooks specification has them (its symmetric scheme, v1)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

from ragver.errors import InvalidRequest

PREFIX = "whsec_"
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64


def new_secret() -> bytes:
    """A secret that nobody has had before."""
    return secrets.token_bytes(32)


def shown(secret: bytes) -> str:
    """The secret as people and programs pass it on."""
    return PREFIX + base64.b64encode(secret).decode()


def read(secret: str) -> bytes:
    """The secret from its shown form. Raises ``InvalidRequest``."""
    try:
        found = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not (secret.startswith(PREFIX) and SECRET_BYTES_MIN <= len(found) <= SECRET_BYTES_MAX):
        raise InvalidRequest(
            f"`secret` is {PREFIX} and the base64 of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} random bytes; "
            "leave it out and get one"
        )
    return found


def signature(secret: bytes, event_id: str, timestamp_s: int, body: bytes) -> str:
    """What goes into the header `webhook-signature`."""
    signed = f"{event_id}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def headers(secret: bytes, event_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The three headers of an attempt; the id stays the same in all attempts, the time is the attempt's."""
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": signature(secret, event_id, timestamp_s, body),
    }
