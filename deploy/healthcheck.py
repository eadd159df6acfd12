"""Exit status 0 if the ragver server in this container answers that it lives; the image has no curl."""

from __future__ import annotations

import os
import sys
from http.client import HTTPConnection, HTTPException

TIMEOUT_S = 3.0


def alive() -> bool:
    # Not urllib, which would ask a proxy from the environment.
    connection = HTTPConnection("127.0.0.1", int(os.environ.get("RAGVER_PORT", "8000")), timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not alive())
