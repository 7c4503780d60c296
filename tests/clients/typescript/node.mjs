import { createServer } from "node:net";
import { LlmRouter } from "llmrouter";
import { asAdmin, asStranger, asUser } from "./checks.mjs";

let input = "";
for await (const part of process.stdin) input += part;
const { url, user, admin, name } = JSON.parse(input);
const silent = createServer(() => {}).listen(0, "127.0.0.1");
await new Promise((resolve) => silent.once("listening", resolve));
const found = {
  user: await asUser(new LlmRouter({ baseUrl: url, token: user })),
  stranger: await asStranger(url, user, `http://127.0.0.1:${silent.address().port}`),
  admin: await asAdmin(new LlmRouter({ baseUrl: url, token: () => admin }), name),
};
console.log(JSON.stringify(found));
process.exit(0);
