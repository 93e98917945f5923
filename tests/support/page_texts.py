"""The English texts of pages, Portico's and those of its libraries."""

from __future__ import annotations

from pathlib import Path

import allauth
import axes
import django.conf
import django.contrib.admin
import django.contrib.auth
from django.utils import translation

from accounts.models import OAuthClient
from tests.support.translations import APPS, FILE, ROOT, entries

WORDS = "accounts/locale/en/LC_MESSAGES/django.po"
"""Portico's words for texts of libraries."""
CATALOGUE = "locale/de/LC_MESSAGES/django.po"
LIBRARIES = (allauth, axes, django.contrib.admin, django.contrib.auth, django.conf)


def library_texts() -> set[str]:
    """The texts of libraries; django-oauth-toolkit has most of them in no catalogue."""
    folders = [Path(str(package.__file__)).parent for package in LIBRARIES]
    found = {one.msgid for folder in folders for one in entries(folder / CATALOGUE)}
    with translation.override(None):
        return found | {str(field.help_text) for field in OAuthClient._meta.fields}


def english_texts() -> set[str]:
    """The texts of pages in English that have a translation."""
    own = [one for app in APPS for one in entries(ROOT / app / f"{FILE}.po")]
    words = [text for one in entries(ROOT / WORDS) for text in one.texts]
    return {one.msgid for one in own} | library_texts() | {*words}
