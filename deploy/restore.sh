#!/bin/sh
# restore.sh FILE: put a copy made by backup.sh back. Stop the servers first, and start
# them afterwards: on SQLite a server that was left running keeps the old file open,
# notices within 5 seconds, and answers 503 at /mcp and /readyz until it is restarted.
# Tokens revoked after the copy was made would count again, so all are revoked here:
# people sign in anew. KEEP_TOKENS=yes leaves that away.
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
    "$python" "$(dirname "$0")/libpq.py" \
      pg_restore --clean --if-exists --no-owner --single-transaction "$file" ;;
  *)
    rm -f "$sqlite-wal" "$sqlite-shm"
    cp "$file" "$sqlite.new"
    mv "$sqlite.new" "$sqlite" ;;
esac
"$python" manage.py migrate --noinput
if [ "${KEEP_TOKENS:-no}" != yes ]; then
  "$python" manage.py revoke_tokens --everything --reason "database restored" || true
fi
"$python" manage.py doctor || true
