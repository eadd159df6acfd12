"""Signs what an erasure has done, and checks such a signature.

Ed25519 over the canonical JSON of everything but the signature. The key is derived from the secret that all processes
of a ledger share and from the ledger's id (HKDF), so it needs no keeping of its own and is as old as the secret. A
receipt carries the public key, which proves nothing by itself: hold it against one that came another way.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ragver import wire
from ragver.canonical import canonical

PURPOSE = b"ragver.erasure-receipt.ed25519"
SEED_BYTES = 32
KEY_ID_DIGITS = 16


class ReceiptSigner:
    """Signs the receipts of one ledger."""

    def __init__(self, secret: str, ledger_id: UUID) -> None:
        seed = HKDF(SHA256(), SEED_BYTES, salt=ledger_id.bytes, info=PURPOSE).derive(secret.encode())
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        public = self._key.public_key().public_bytes_raw()
        self.public = wire.ReceiptKey(
            algorithm="Ed25519",
            key_id=hashlib.sha256(public).hexdigest()[:KEY_ID_DIGITS],
            public_key=_encoded(public),
            ledger_id=str(ledger_id),
        )

    def signed(self, **content: Any) -> wire.ErasureReceipt:
        """The receipt of this content, signed."""
        content |= {
            "ledger_id": self.public.ledger_id,
            "key_id": self.public.key_id,
            "public_key": self.public.public_key,
        }
        draft = wire.ErasureReceipt(**content, signature="")
        return draft.model_copy(update={"signature": _encoded(self._key.sign(_signed_part(draft)))})


def genuine(receipt: wire.ErasureReceipt, public_key: str) -> bool:
    """Whether the owner of this key signed the receipt, every field of it."""
    try:
        key = Ed25519PublicKey.from_public_bytes(_decoded(public_key))
        key.verify(_decoded(receipt.signature), _signed_part(receipt))
    except (InvalidSignature, ValueError):
        return False
    return True


def _signed_part(receipt: wire.ErasureReceipt) -> bytes:
    return canonical(receipt.model_dump(mode="json", exclude={"signature"}))


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("no base64url") from error
