"""To which URLs webhooks may go."""

from __future__ import annotations

import ipaddress

import httpx

from ragver.errors import WebhookUrlRefused


def checked(url: str, *, anywhere: bool) -> str:
    """The URL, if a webhook may go there: by https, or by http to this machine; `anywhere` lifts that, so that http
    goes to other machines as well. Raises ``WebhookUrlRefused``."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise WebhookUrlRefused(f"this is no URL: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise WebhookUrlRefused("a webhook goes to an address that begins with https://")
    if parsed.userinfo or parsed.fragment:
        raise WebhookUrlRefused(
            "a webhook's URL holds neither a password nor a fragment; its signature proves the sender"
        )
    if parsed.scheme == "http" and not (anywhere or _loopback(parsed.host)):
        raise WebhookUrlRefused(
            "a webhook goes by https, or by http to this machine only; RAGVER_WEBHOOKS_ANYWHERE=true allows plain http"
        )
    return url


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
