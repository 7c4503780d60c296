// A user's program, as strict as TypeScript can be told to be.
import { LlmRouter, LlmRouterError, getUsage, hasReason, listModels, route, updateModel } from "llmrouter";
import type { Model, RouteResponse, Token } from "llmrouter";

const token: Token = async ({ isRefused }) => (isRefused ? "new" : "old");
const client = new LlmRouter({ baseUrl: new URL("https://llm.example.com"), token, timeoutMs: 1000 });

export async function choose(signal: AbortSignal): Promise<string> {
  const answer: RouteResponse = await route(client, { power_level: "ECO", fallback_count: 2 }, { signal });
  const why: number | undefined = answer.explanation?.models.length;
  return `${answer.primary.model_name} ${answer.fallbacks.length} ${why ?? 0}`;
}

export async function names(): Promise<string[]> {
  const found: string[] = [];
  for await (const model of listModels.all(client)) found.push((model satisfies Model).display_name);
  return found;
}

export async function explain(): Promise<string> {
  try {
    const usage = await getUsage(client, { days: 7 });
    return String(usage.by_power_level["ECO"]?.requests);
  } catch (error) {
    if (hasReason(error, "INVALID_FIELD")) return error.violations[0].description;
    if (hasReason(error, "RESOURCE_NOT_FOUND")) return error.metadata.resource;
    if (error instanceof LlmRouterError && error.reason === "RATE_LIMITED") return `${error.retryAfterMs ?? 0}`;
    throw error;
  }
}

// @ts-expect-error a field that is required is missing
void updateModel(client, { is_enabled: true });
// @ts-expect-error there is no such power level
void route(client, { power_level: "MAXIMUM" });
// @ts-expect-error there is no such field
void route(client, { fallbackcount: 1 });
// @ts-expect-error there is no such reason
hasReason(new Error(), "NO_SUCH_REASON");
