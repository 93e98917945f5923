#!/bin/sh
# rolling-restart.sh 8001 8002: restart the processes behind nginx.conf one after the other.
# nginx sends no requests to a process while it restarts, so no request fails.
set -eu
site=${SITE:-/etc/nginx/sites-available/portico}
host=${HOST_NAME:?the public host name, as in ISSUER_URL}
up=' max_fails=0;'
for port in "$@"; do
  sed -i "s/:$port$up/:$port down;/" "$site"
  nginx -t -q && nginx -s reload
  sleep 3
  systemctl restart "portico@$port"
  until curl -fsS -o /dev/null -m 6 -H "Host: $host" -H "X-Forwarded-Proto: https" "http://127.0.0.1:$port/readyz"; do
    sleep 1
  done
  sed -i "s/:$port down;/:$port$up/" "$site"
  nginx -t -q && nginx -s reload
done
