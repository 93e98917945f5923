#!/bin/sh
# backup.sh FILE: copy Portico's database while the server runs. The copy is consistent.
# It is the database of the server's settings: the environment, .env and /run/secrets.
# Store KEY_ENCRYPTION_KEY and SECRET_KEY elsewhere: without them, the copy cannot sign tokens.
set -eu
umask 077
home=$(dirname "$0")/..
exec "${PYTHON:-$home/.venv/bin/python}" "$home/manage.py" backup "$1"
