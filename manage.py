"""Django's command line."""

import os
import sys


def main() -> None:
    """Run one command; broken settings and databases end in sentences."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.management import execute_from_command_line
    from django.db import DatabaseError

    try:
        execute_from_command_line(sys.argv)
    except DatabaseError as error:
        from accounts.management.errors import database_remedy

        sys.exit(database_remedy(error))


if __name__ == "__main__":
    main()
