"""How dates are written, by language (Django finds them by FORMAT_MODULE_PATH)."""
