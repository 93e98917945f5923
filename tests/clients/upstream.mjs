// Run by Node: list, call, progress and cancellation through Portico at server-everything.
// node upstream.mjs 1|2 URL TOKEN
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
const call = (name, args, options) => {
  const params = { name: `every__${name}`, arguments: args };
  return v1 ? client.callTool(params, undefined, options) : client.callTool(params, options);
};
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const { tools } = await client.listTools();
const echo = await call("echo", { message: "hi" });
const long = "trigger-long-running-operation";
const progress = [];
const onprogress = (step) => progress.push(step.progress);
await call(long, { duration: 0.3, steps: 3 }, { onprogress });
const cancelled = [];
for (const options of [{}, { onprogress }]) {
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 500);
  const waits = call(long, { duration: 60, steps: 1 }, { ...options, signal: controller.signal });
  cancelled.push(await waits.then(() => false, () => true));
}
await pause(500);
console.log(
  JSON.stringify({ tools: tools.map((tool) => tool.name), echo: echo.content[0].text, progress, cancelled }),
);
process.exit(0);
