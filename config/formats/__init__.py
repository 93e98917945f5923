"""Date formats by language; Django finds them by FORMAT_MODULE_PATH."""
