"""Run by a Python with `mcp<2`: sign a user in, call, refresh; print JSON."""

import asyncio
import json
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

from mcp import ClientSession
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamablehttp_client
from mcp.shared.auth import OAuthClientMetadata

url, *visitor = sys.argv[1:]
ends = []


class Storage:
    tokens = info = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.info

    async def set_client_info(self, info):
        self.info = info


async def redirect(to):
    done = subprocess.run([*visitor, to], capture_output=True, text=True, check=True)
    ends.append(done.stdout.strip())


async def returned():
    found = parse_qs(urlsplit(ends[-1]).query)
    return found["code"][0], found["state"][0]


async def call(auth):
    async with (
        streamablehttp_client(url, auth=auth) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        return (await session.call_tool("whoami", {})).content[0].text


async def main():
    metadata = OAuthClientMetadata(
        client_name="older", redirect_uris=["http://localhost:3030/callback"]
    )
    storage = Storage()
    auth = OAuthClientProvider(url, metadata, storage, redirect, returned)
    first = await call(auth)
    used = storage.tokens.access_token
    auth.context.token_expiry_time = 1.0
    again = await call(auth)
    found = {
        "whoami": first,
        "again": again,
        "refreshed": storage.tokens.access_token != used,
        "asked": len(ends),
        "client": storage.info.client_id,
        "access": storage.tokens.access_token,
    }
    print(json.dumps(found))


asyncio.run(main())
