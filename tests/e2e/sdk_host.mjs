// A host: the TypeScript SDK's client on a stdio server, told what to do line by line, and telling what it sees.
// node sdk_host.mjs COMMAND [ARGUMENT …]
import { createInterface } from "node:readline";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { ToolListChangedNotificationSchema } from "@modelcontextprotocol/sdk/types.js";

const tell = (message) => process.stdout.write(JSON.stringify(message) + "\n");
const [command, ...args] = process.argv.slice(2);
const transport = new StdioClientTransport({ command, args, env: process.env, stderr: "pipe" });
const client = new Client({ name: "host", version: "1" });

client.onclose = () => tell({ saw: "close" });
client.onerror = (error) => tell({ saw: "error", message: error.message });
client.setNotificationHandler(ToolListChangedNotificationSchema, () => tell({ saw: "list_changed" }));
transport.stderr.on("data", (data) => tell({ saw: "stderr", message: String(data) }));

const acts = {
  call: ({ name, arguments: given, meta }) => {
    const progress = [];
    const onprogress = (report) => progress.push(report.progress);
    const asked = client.callTool({ name, arguments: given, _meta: meta }, undefined, { onprogress, timeout: 120000 });
    return asked.then((result) => ({ ...result, progress }));
  },
  tools: () => client.listTools().then((found) => found.tools.map((tool) => tool.name)),
  ping: () => client.ping(),
  close: () => client.close(),
};

await client.connect(transport);
tell({ saw: "connected" });
for await (const line of createInterface({ input: process.stdin })) {
  const { id, act, ...given } = JSON.parse(line);
  acts[act](given).then(
    (result) => tell({ id, result: result ?? null }),
    (error) => tell({ id, error: { code: error.code, message: error.message, data: error.data } }),
  );
}
