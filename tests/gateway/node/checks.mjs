// What a user of OpenAI's client for JavaScript does, once each, all side by side. Reads from standard input for each
// check where to ask, whose token and which model; writes one JSON document: each check's result, or the error it met.
import OpenAI from "openai";

let input = "";
for await (const part of process.stdin) input += part;
const { users, messages, image, tool } = JSON.parse(input);

const as = (name, more = {}) =>
  new OpenAI({ baseURL: users[name].url, apiKey: users[name].token, maxRetries: 0, timeout: 15_000, ...more });
const modelOf = (name) => users[name].model;
const ask = (name, more = {}) => as(name).chat.completions.create({ model: modelOf(name), messages, ...more });
const textOf = (chunk) => chunk.choices[0]?.delta?.content ?? "";

async function read(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return { text: chunks.map(textOf).join(""), usage: chunks.at(-1).usage ?? null, model: chunks[0].model };
}

const checks = {
  async whole() {
    const { data, response, request_id } = await ask("whole").withResponse();
    const headers = Object.fromEntries([...response.headers].filter(([name]) => name.startsWith("x-llmrouter-")));
    return { text: data.choices[0].message.content, model: data.model, usage: data.usage, headers, request_id };
  },
  stream: async () => read(await ask("stream", { stream: true })),
  usage: async () => read(await ask("usage", { stream: true, stream_options: { include_usage: true } })),
  async helper() {
    const stream = as("helper").chat.completions.stream({ model: modelOf("helper"), messages });
    return { text: await stream.finalContent() };
  },
  async tool() {
    const answer = await ask("tool", { tools: [tool] });
    return { calls: answer.choices[0].message.tool_calls };
  },
  async streamedTool() {
    const asked = { model: modelOf("streamedTool"), messages, tools: [tool] };
    const stream = as("streamedTool").chat.completions.stream(asked);
    return { calls: (await stream.finalMessage()).tool_calls };
  },
  async image() {
    const content = [{ type: "text", text: "What is it?" }, { type: "image_url", image_url: { url: image } }];
    const answer = await ask("image", { messages: [{ role: "user", content }] });
    return { text: answer.choices[0].message.content };
  },
  async list() {
    const ids = [];
    for await (const model of as("whole").models.list()) ids.push(model.id);
    return { ids };
  },
  retrieve: async () => ({ id: (await as("whole").models.retrieve(modelOf("whole"))).id }),
  badRequest: () => ask("badRequest", { temperature: 9 }),
  wrongField: () => ask("wrongField", { max_tokens: -1 }),
  unknownModel: () => ask("whole", { model: "gpt-of-nobody" }),
  wrongToken: () => as("whole", { apiKey: "sk-somebody-elses" }).models.list(),
  unknownPath: () => as("whole").embeddings.create({ model: "auto", input: "x" }),
  async budget() {
    let sent = 0;
    const counted = (...request) => ((sent += 1), fetch(...request));
    const patient = as("budget", { maxRetries: 2, fetch: counted });
    try {
      return await patient.chat.completions.create({ model: modelOf("budget"), messages, max_tokens: 2000 });
    } catch (error) {
      error.sent = sent;
      throw error;
    }
  },
  failed: () => ask("failed"),
  cut: async () => read(await ask("cut", { stream: true })),
  reset: async () => read(await ask("reset", { stream: true })),
  stalled: async () => read(await ask("stalled", { stream: true })),
};

const told = {};
await Promise.all(
  Object.entries(checks).map(async ([name, check]) => {
    try {
      told[name] = await check();
    } catch (error) {
      const { status, code, param, type, sent, message } = error;
      told[name] = { error: error.constructor.name, is_api_error: error instanceof OpenAI.OpenAIError, message };
      Object.assign(told[name], { status, code, param, type, sent });
    }
  }),
);
process.stdout.write(JSON.stringify(told));
