"""Django's SQLite backend (`base`) with private files and a queue of writers."""
