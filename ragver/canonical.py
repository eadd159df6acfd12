"""JSON that two programs write alike, for hashes and signatures: sorted names, no spaces, UTF-8."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(content: Any) -> bytes:
    """The canonical JSON of what JSON can hold; numbers should be whole, since decimals can be spelt in many ways."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def canonical_hash(content: Any) -> bytes:
    """SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(content)).digest()
