"""Exit code 0 if this container's /healthz answers; for HEALTHCHECK."""

import os
import sys
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen


def main() -> int:
    """Request with the public host name: Portico answers 421 to others."""
    port = os.environ.get("PORT", "8000")
    host = urlsplit(os.environ.get("ISSUER_URL", "")).netloc or "127.0.0.1"
    request = Request(f"http://127.0.0.1:{port}/healthz", headers={"Host": host})
    try:
        with urlopen(request, timeout=2) as response:  # noqa: S310
            return int(response.status != 200)
    except (URLError, OSError):
        return 1


if __name__ == "__main__":
    sys.exit(main())
