// A headless MCP client: fetch a token, connect, list, call, refresh when it expires.
//
//   node client.ts http://127.0.0.1:8000 alice portico-demo
//
// Node 22.18 and newer run this file without a build; it needs only @modelcontextprotocol/client.

import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const MARGIN = 5; // renew a token this many seconds before it expires

type Tokens = { access: string; refresh: string; expires_in: number };

/** A fetch that adds a valid access token to every request. */
class PorticoTokens {
  private tokens: Tokens | undefined;
  private renewAt = 0;
  private renewing: Promise<void> | undefined;
  private url: string;
  private username: string;
  private password: string;

  constructor(url: string, username: string, password: string) {
    this.url = url;
    this.username = username;
    this.password = password;
  }

  private async post(path: string, body: object): Promise<Response> {
    return fetch(`${this.url}/api/token/${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  }

  private async renew(): Promise<void> {
    let answer: Response | undefined;
    if (this.tokens) answer = await this.post("refresh/", { refresh: this.tokens.refresh });
    if (!answer || answer.status === 401) {
      // no refresh token yet, or it is not valid either: sign in
      answer = await this.post("", { username: this.username, password: this.password });
    }
    if (!answer.ok) throw new Error(`No token (${answer.status}): ${await answer.text()}`);
    this.tokens = (await answer.json()) as Tokens;
    const lasts = this.tokens.expires_in;
    this.renewAt = Date.now() + Math.max(lasts - MARGIN, lasts / 2) * 1000;
    console.log("got a token");
  }

  /** A valid token; concurrent requests share one renewal. */
  async access(refused?: string): Promise<string> {
    if (!this.tokens || Date.now() >= this.renewAt || this.tokens.access === refused) {
      this.renewing ??= this.renew().finally(() => (this.renewing = undefined));
      await this.renewing;
    }
    return this.tokens!.access;
  }

  fetch = async (input: string | URL | Request, init: RequestInit = {}): Promise<Response> => {
    const send = (token: string) => {
      const headers = new Headers(init.headers);
      headers.set("authorization", `Bearer ${token}`);
      return fetch(input, { ...init, headers });
    };
    const token = await this.access();
    const answer = await send(token);
    if (answer.status !== 401) return answer;
    return send(await this.access(token)); // revoked, or a clock is wrong: try once more with a new token
  };
}

async function main(url: string, username: string, password: string, times: number) {
  const tokens = new PorticoTokens(url, username, password);
  try {
    await tokens.access();
  } catch (problem) {
    console.error((problem as Error).message);
    process.exit(1);
  }
  const transport = new StreamableHTTPClientTransport(new URL(`${url}/mcp`), { fetch: tokens.fetch });
  const client = new Client({ name: "portico-example", version: "1.0.0" });
  await client.connect(transport);
  const { tools } = await client.listTools();
  console.log("tools:", tools.map((tool) => tool.name).sort().join(", "));
  for (let count = 0; count < times; count++) {
    if (count) await new Promise((resolve) => setTimeout(resolve, 1000));
    const answer = await client.callTool({ name: "whoami", arguments: {} });
    console.log("whoami:", JSON.stringify(answer.structuredContent));
  }
  await client.close();
}

const [url, username, password, times = "1"] = process.argv.slice(2);
if (!password) {
  console.error("usage: node client.ts URL USERNAME PASSWORD [TIMES]");
  process.exit(1);
}
await main(url.replace(/\/$/, ""), username, password, Number(times));
