"""Static files, also while processes of two releases serve side by side.

During a rolling upgrade, a page of one release may ask a process of the other for its
style sheet. Its name contains a hash, which the other process does not know.
"""

from __future__ import annotations

import os
import re
from typing import Any

from servestatic import ServeStaticASGI
from starlette.types import Receive, Scope, Send

HASHED = re.compile(r"(?P<stem>.+)\.[0-9a-f]{12}(?P<suffix>\.[^/]+)")
"""A URL from ManifestStaticFilesStorage."""


class RollingStaticFiles(ServeStaticASGI):
    """Serves files that were collected since the start, or this release's version."""

    def __init__(self, application: Any, root: Any, prefix: str) -> None:
        self.root, self.prefix = os.fspath(root), prefix
        super().__init__(application, root=root, prefix=prefix)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self.files:
            found = self.of_other_release(scope["path"])
            if found:
                scope = {**scope, "path": found}
        await super().__call__(scope, receive, send)

    def of_other_release(self, url: str) -> str:
        """The URL of the file that answers a name of another release; or empty."""
        named = HASHED.fullmatch(url) if url.startswith(self.prefix) else None
        if named is None:
            return ""
        path = os.path.join(self.root, url.removeprefix(self.prefix))
        if self.path_within_root(self.root, path) and os.path.isfile(path):
            self.add_file_to_dictionary(url, path, root=self.root)
            return url
        plain = named["stem"] + named["suffix"]
        return plain if plain in self.files else ""
