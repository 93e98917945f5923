"""Django's command line."""

import os
import sys


def main() -> None:
    """Run one command; broken settings, apps and databases end in sentences."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django
    from django.core.management import execute_from_command_line
    from django.db import DatabaseError

    from accounts.management.errors import BrokenApp, app_remedy, database_remedy

    try:
        django.setup()
    except Exception as error:
        text = app_remedy(error)
        if not text:
            raise
        sys.exit(text)
    try:
        execute_from_command_line(sys.argv)
    except DatabaseError as error:
        sys.exit(database_remedy(error))
    except BrokenApp as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
