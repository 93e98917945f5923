"""What each template shows, with every condition both ways.

After an intended change, write the files again and read the difference:
`NEW_OUTLINES=1 .venv/bin/python -m pytest tests/accounts/test_template_outlines.py`
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.template import Origin, Template
from django.utils import translation

from tests.support.outlines import compare
from tests.support.static_files import UNCOLLECTED
from tests.support.template_outline import made_values, template_outline

OUTLINES = Path(__file__).parent / "outlines" / "templates"
APPS = ("accounts", "mcp_bridge")


@pytest.mark.parametrize("app", APPS)
def test_templates_show_what_they_showed(settings: Any, app: str) -> None:
    settings.STORAGES = UNCOLLECTED
    root, found = Path(apps.get_app_config(app).path) / "templates", dict[str, str]()
    for path in sorted(one for one in root.rglob("*") if one.is_file()):
        name, source = str(path.relative_to(root)), path.read_text(encoding="utf-8")
        template = Template(source, Origin(str(path), name))
        with made_values(), translation.override("en"):
            found[name.replace("/", "_") + ".txt"] = template_outline(template)
    compare(found, OUTLINES / app)
