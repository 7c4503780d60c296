// What a user of the client does, once each: in Node as it is, in a browser as a module of a page. Returns what it found.
import {
  LlmRouter, createProvider, deleteKey, disableProvider, exportUsage, getDecision, getModel, getProvider, getSettings,
  hasReason, listKeys, listModels, route, storeKey, updateProvider, updateSettings,
} from "llmrouter";

async function failure(work) {
  try {
    await work();
    return "no error";
  } catch (error) {
    const { name, reason, status, violations, metadata, retryAfterMs, requestId } = error;
    return { name, reason, status, fields: (violations ?? []).map((each) => each.field), metadata, retryAfterMs, requestId };
  }
}

async function collect(rows) {
  const found = [];
  for await (const row of rows) found.push(row);
  return found;
}

/** What everybody can do, as one user. */
export async function asUser(client) {
  const decision = await route(client, { power_level: "eco", explain: true });
  const read = await getDecision(client, { decision_id: decision.decision_id });
  const models = await collect(listModels.all(client, { page_size: 4 }));
  const first = await listModels(client, { page_size: 4 });
  const model = await getModel(client, { model_id: models[0].model_id });
  const key = await storeKey(client, { provider_id: models[0].provider_id, api_key: "sk-typescript-0123456789" });
  const keys = await collect(listKeys.all(client));
  const gone = await deleteKey(client, { key_id: key.key_id });
  const settings = await updateSettings(client, { routing_config: { strategy: "cost_optimized" }, monthly_budget_usd: null });
  const csv = await new Response(await exportUsage(client, { power_level: "ECO" })).text();
  const invalid = await failure(() => route(client, { fallback_count: 9, required_capabilities: ["telepathy"] }));
  const stopped = new AbortController();
  const aborted = failure(() => getSettings(client, {}, { signal: stopped.signal }));
  stopped.abort();
  return {
    chosen: decision.primary.model_name,
    explained: decision.explanation.models.length,
    sameDecision: read.decision_id === decision.decision_id,
    models: models.map((each) => each.model_id),
    firstPage: first.models.length,
    sameModel: model.model_id === models[0].model_id,
    keys: keys.map((each) => each.key_prefix),
    gone,
    strategy: settings.routing_config.strategy,
    csv: csv.split("\r\n")[0],
    invalid,
    narrowed: hasReason(Object.assign(new Error(), { reason: "INVALID_FIELD" }), "INVALID_FIELD"),
    notFound: await failure(() => getModel(client, { model_id: crypto.randomUUID() })),
    forbidden: await failure(() => getProvider(client, { provider_id: models[0].provider_id })),
    requestId: (await failure(() => getModel(client, { model_id: "x" }, { requestId: "mine-1" }))).requestId,
    aborted: (await aborted).name,
  };
}

/** What a read and a write come to, and how often each is sent. */
async function calls(token, fetch) {
  const sent = [];
  const counting = (url, { method }) => (sent.push(method), fetch());
  const client = new LlmRouter({ baseUrl: "http://127.0.0.1:1", token, fetch: counting });
  const [read, write] = [await failure(() => getSettings(client)), await failure(() => route(client))];
  return { read, write, sent: sent.join(" ") };
}

/** What tokens, deadlines and failures do. `silent` accepts connections and says nothing. */
export async function asStranger(baseUrl, token, silent) {
  const asked = [];
  const refreshing = new LlmRouter({
    baseUrl,
    token: async ({ isRefused }) => {
      asked.push(isRefused);
      return isRefused ? token : "stale";
    },
  });
  const refreshed = (await getSettings(refreshing)).preferred_power_level;
  const page = { status: 503, headers: { "retry-after": "0" } };
  const busy = await calls(token, async () => new Response("<h1>Bad gateway</h1>", page));
  const broken = await calls(token, async () => Promise.reject(new TypeError("fetch failed")));
  const answering = (body, status = 200) =>
    new LlmRouter({ baseUrl, token, fetch: async () => new Response(body, { status }) });
  const cut = new ReadableStream({ pull: (stream) => stream.error(new TypeError("terminated")) });
  return {
    refreshed,
    asked,
    refused: await failure(() => getSettings(new LlmRouter({ baseUrl, token: "forged" }))),
    late: await failure(() => getSettings(new LlmRouter({ baseUrl: silent, token }), {}, { timeoutMs: 300 })),
    away: await failure(() => getSettings(new LlmRouter({ baseUrl: "http://127.0.0.1:1", token, retries: 0 }))),
    busy,
    broken,
    page: await failure(() => getSettings(answering("<!doctype html>"))),
    odd: await failure(() => getSettings(answering('{"message": "no", "details": [null]}', 400))),
    cut: await failure(async () => new Response(await exportUsage(answering(cut))).text()),
    signedOut: await failure(() => getSettings(new LlmRouter({ baseUrl, token: () => Promise.reject(new RangeError()) }))),
    noTokens: await Promise.all(
      ["a-secret\nof two lines", "a-secret-ö", "", () => undefined].map(async (given) => {
        const error = await getSettings(new LlmRouter({ baseUrl, token: given })).catch((caught) => caught);
        return [error.name, `${error.stack} ${error.cause?.stack}`.includes("a-secret")];
      }),
    ),
    noUrls: await Promise.all(["localhost:8080", "ftp://localhost"].map((url) => failure(() => new LlmRouter({ baseUrl: url })))),
    noPath: (await failure(() => getModel(refreshing, { model_id: "" }))).name,
  };
}

/** What admins do. */
export async function asAdmin(client, name) {
  const asked = { name, provider_type: "openai", api_endpoint: "http://127.0.0.1:1/v1", is_enabled: false };
  const made = await createProvider(client, asked);
  const taken = await failure(() => createProvider(client, asked));
  const changed = await updateProvider(client, { provider_id: made.provider_id, priority: 9, etag: made.etag });
  const stale = await failure(() => disableProvider(client, { provider_id: made.provider_id, etag: made.etag }));
  return { priority: changed.priority, taken, stale };
}
