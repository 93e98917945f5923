#!/bin/sh
# backup.sh FILE: copy Portico's database while the server runs. The copy is consistent.
# Run it in Portico's folder, with the server's settings in the environment.
# Store KEY_ENCRYPTION_KEY and SECRET_KEY elsewhere: without them, the copy cannot sign tokens.
set -eu
umask 077
file=$1
python=${PYTHON:-.venv/bin/python}
case ${DATABASE_URL:-} in
  sqlite:///*) sqlite=${DATABASE_URL#sqlite:///}; sqlite=${sqlite%%\?*} ;;
  *) sqlite=${DATA_DIR:-var}/portico.sqlite3 ;;
esac
case ${DATABASE_URL:-} in
  postgres*)
    "$python" "$(dirname "$0")/libpq.py" pg_dump --format=custom --no-owner --file="$file" ;;
  *) "$python" - "$sqlite" "$file" <<'PYTHON'
import pathlib, sqlite3, sys
name = pathlib.Path(sys.argv[1]).absolute().as_uri()  # quotes % ? #
source = sqlite3.connect(f"{name}?mode=ro", uri=True)
target = sqlite3.connect(sys.argv[2])
source.backup(target)
assert target.execute("PRAGMA integrity_check").fetchone() == ("ok",)
PYTHON
  ;;
esac
