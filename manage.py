"""Django's command line."""

import os
import sys


def main() -> None:
    """Run one command; broken settings end in sentences, not in a traceback."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
