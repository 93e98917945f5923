"""Dates of the pages, in every language."""

from __future__ import annotations

from datetime import datetime

import pytest
from django.conf import settings
from django.utils import formats, translation

pytestmark = pytest.mark.once


@pytest.mark.parametrize("language", [code for code, _name in settings.LANGUAGES])
def test_dates_sort_as_text(language: str) -> None:
    with translation.override(language):
        formats.reset_format_cache()
        moment = datetime(2026, 3, 4, 15, 6)
        assert formats.date_format(moment, "DATETIME_FORMAT") == "2026-03-04 15:06"
        assert formats.date_format(moment, "DATE_FORMAT") == "2026-03-04"
