#!/bin/sh
# restore.sh FILE: restore a copy made by backup.sh. Stop the servers before and start them
# afterwards. On SQLite a running server keeps the old file open. It notices the new file
# within 5 seconds and answers 503 until it is restarted.
# Tokens revoked after the copy was made would be valid again, so this revokes all tokens
# and people must sign in again. KEEP_TOKENS=yes keeps tokens; browsers are signed out.
set -eu
umask 077
home=$(dirname "$0")/..
keep=
if [ "${KEEP_TOKENS:-no}" = yes ]; then keep=--keep-tokens; fi
exec "${PYTHON:-$home/.venv/bin/python}" "$home/manage.py" restore --noinput $keep "$1"
