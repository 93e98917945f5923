#!/bin/sh
# restore.sh FILE: restore a copy made by backup.sh. Stop the servers before and start them
# afterwards. On SQLite a running server keeps the old file open. It notices the new file
# within 5 seconds and answers 503 at /mcp and /readyz until it is restarted.
# Tokens revoked after the copy was made would be valid again, so this revokes all tokens
# and people must sign in again. KEEP_TOKENS=yes skips that.
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
