"""Signatures as Standard Webhooks has them, where webhooks may go, and how long they wait."""

from __future__ import annotations

import pytest

from ragver.errors import InvalidRequest, WebhookUrlRefused
from ragver.webhooks import signing, targets
from ragver.webhooks.delivery import ATTEMPTS_MAX, JITTER, RETRY_S_MAX, wait_after_s

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_signature_is_that_of_other_implementations() -> None:
    """A vector that the libraries of Standard Webhooks test themselves with."""
    body = b'{"test": 2432232314}'
    made = signing.headers(signing.read(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    } == made


def test_secrets_are_shown_and_read_back() -> None:
    secret = signing.new_secret()
    assert secret == signing.read(signing.shown(secret))
    assert secret != signing.new_secret()


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%%%"])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(InvalidRequest):
        signing.read(secret)


@pytest.mark.parametrize(
    "url",
    ["https://example.org/x", "https://10.0.0.1/", "http://127.0.0.1:8080/x", "http://[::1]/", "http://localhost/"],
)
def test_webhooks_go_by_https_or_to_this_machine(url: str) -> None:
    assert url == targets.checked(url, anywhere=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1.example.org/",
        "http://localhost.example.org/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "https://",
        "https://user:password@example.org/",
        "nonsense",
        "https://example.org:port/",
    ],
)
def test_and_nowhere_else(url: str) -> None:
    with pytest.raises(WebhookUrlRefused):
        targets.checked(url, anywhere=False)


def test_plain_http_to_others_has_to_be_allowed() -> None:
    assert "http://example.org/" == targets.checked("http://example.org/", anywhere=True)
    with pytest.raises(WebhookUrlRefused):
        targets.checked("ftp://example.org/", anywhere=True)


def test_waits_double_up_to_a_bound() -> None:
    waits = [wait_after_s(attempts) for attempts in range(1, ATTEMPTS_MAX)]
    for attempts, wait_s in enumerate(waits):
        due = min(2.0**attempts, RETRY_S_MAX)
        assert due * (1 - JITTER) <= wait_s <= due * (1 + JITTER)
    assert 6 * 3_600 < sum(waits) < 12 * 3_600
