"""Sphinx builds these pages as a site: `make docs`, then .cache/docs/index.html."""

import tomllib
from pathlib import Path

from pygments.lexers.special import TextLexer  # type: ignore[import-untyped]
from sphinx.highlighting import lexers

ROOT = Path(__file__).resolve().parent.parent

project = "Portico"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
author = project_copyright = "The Portico maintainers"

extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["screenshots"]
# Diagrams stay as text: the extension that draws them loads a script from elsewhere.
lexers["mermaid"] = TextLexer()
html_theme = "furo"
html_title = f"Portico {release}"
html_static_path: list[str] = []
html_show_sphinx = False
linkcheck_ignore = [r"http://127\.0\.0\.1.*", r"https?://[a-z.]*example.*"]
"""Addresses of the examples."""
