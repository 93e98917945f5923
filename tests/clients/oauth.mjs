// Run by Node: the TypeScript SDK of either generation signs a person in.
// node oauth.mjs 1|2 URL VISITOR...   (VISITOR URL prints where the person ends)
import { execFileSync } from "node:child_process";

const [generation, url, ...visitor] = process.argv.slice(2);
const v1 = generation === "1";
const { Client } = v1
  ? await import("@modelcontextprotocol/sdk/client/index.js")
  : await import("@modelcontextprotocol/client");
const { StreamableHTTPClientTransport } = v1
  ? await import("@modelcontextprotocol/sdk/client/streamableHttp.js")
  : await import("@modelcontextprotocol/client");

const kept = {};
let callback;
let asked = 0;
const provider = {
  redirectUrl: "http://localhost:3030/callback",
  clientMetadata: {
    client_name: `TypeScript SDK ${generation}`,
    redirect_uris: ["http://localhost:3030/callback"],
    token_endpoint_auth_method: "none",
  },
  state: () => "a-state",
  clientInformation: () => kept.client,
  saveClientInformation: (client) => void (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => void (kept.tokens = tokens),
  saveCodeVerifier: (verifier) => void (kept.verifier = verifier),
  codeVerifier: () => kept.verifier,
  redirectToAuthorization: (to) => {
    asked += 1;
    const [program, ...before] = visitor;
    callback = new URL(execFileSync(program, [...before, String(to)], { encoding: "utf8" }).trim());
  },
};

async function connect() {
  const transport = new StreamableHTTPClientTransport(new URL(url), { authProvider: provider });
  const client = new Client({ name: "tests", version: "1" });
  try {
    await client.connect(transport);
    return client;
  } catch (error) {
    if (!callback) throw error;
    const parameters = callback.searchParams;
    await transport.finishAuth(v1 ? parameters.get("code") : parameters);
    callback = undefined;
    return connect();
  }
}

const client = await connect();
const { tools } = await client.listTools();
const whoami = await client.callTool({ name: "whoami", arguments: {} });
const first = kept.tokens.access_token;
kept.tokens = { ...kept.tokens, access_token: "stale" };
const again = await client.callTool({ name: "whoami", arguments: {} });
console.log(
  JSON.stringify({
    tools: tools.map((tool) => tool.name),
    whoami: whoami.content[0].text,
    again: again.content[0].text,
    refreshed: kept.tokens.access_token !== first && kept.tokens.access_token !== "stale",
    asked,
    client: kept.client.client_id,
    access: kept.tokens.access_token,
  }),
);
await client.close();
process.exit(0);
