// Run by Node: the TypeScript SDK of either generation with a token in a header.
// node sdk.mjs 1|2 URL TOKEN
const [generation, url, token] = process.argv.slice(2);
const v1 = generation === "1";
const { Client } = v1
  ? await import("@modelcontextprotocol/sdk/client/index.js")
  : await import("@modelcontextprotocol/client");
const { StreamableHTTPClientTransport } = v1
  ? await import("@modelcontextprotocol/sdk/client/streamableHttp.js")
  : await import("@modelcontextprotocol/client");

const headers = { Authorization: `Bearer ${token}` };
const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
const client = new Client({ name: "tests", version: "1" });
await client.connect(transport);
const { tools } = await client.listTools();
const whoami = await client.callTool({ name: "whoami", arguments: {} });
const hidden = await client.callTool({ name: "rule", arguments: {} });
const { resources } = await client.listResources();
const { prompts } = await client.listPrompts();
console.log(
  JSON.stringify({
    tools: tools.map((tool) => tool.name),
    whoami: whoami.content[0].text,
    hidden: hidden.content[0].text,
    resources: resources.map((resource) => resource.uri),
    prompts: prompts.map((prompt) => prompt.name),
  }),
);
await client.close();
process.exit(0);
