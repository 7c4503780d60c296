import type { CallOptions, LlmRouter, Outgoing } from "./client.js";
import { errorOf } from "./errors.js";

const CALL_MS = 15_000;
const DOWNLOAD_MS = 300_000;

/** Nothing has to be given when no field is required. */
type Given<Q> = Record<never, never> extends Q ? [request?: Q, options?: CallOptions] : [request: Q, options?: CallOptions];

/** A function that sends one call. Rejects with LlmRouterError. */
export type Operation<Q, A> = (client: LlmRouter, ...given: Given<Q>) => Promise<A>;

/** A function that answers with a file, as a stream of bytes. */
export type Download<Q> = (client: LlmRouter, ...given: Given<Q>) => Promise<ReadableStream<Uint8Array>>;

/** A function that answers with one page, and `all`, which goes through every page. */
export interface PagedOperation<Q, A, R> extends Operation<Q, A> {
  /** Iterates over all rows, and asks for the next page when it is needed. */
  all(client: LlmRouter, ...given: Given<Q>): AsyncGenerator<R, void, undefined>;
}

type Row<A, K extends keyof A> = A[K] extends readonly (infer R)[] ? R : never;

export function operation<Q extends object, A>(method: string, template: string): Operation<Q, A> {
  return async (client, ...[request, options]) => answerOf<A>(client, method, template, request ?? {}, options);
}

export function download<Q extends object>(method: string, template: string): Download<Q> {
  return async (client, ...[request, options]) => {
    const answer = await client.send({ ...outgoing(method, template, request ?? {}), timeoutMs: DOWNLOAD_MS }, options);
    const parts = answer.body?.getReader();
    return new ReadableStream<Uint8Array>({
      async pull(controller) {
        try {
          const part = await parts?.read();
          if (part?.value) controller.enqueue(part.value);
          else controller.close();
        } catch (error) {
          controller.error(client.told(error, options?.signal));
        }
      },
      cancel: (reason) => parts?.cancel(reason),
    });
  };
}

export function paged<Q extends object, A extends { next_page_token: string }, K extends keyof A>(
  method: string,
  template: string,
  rows: K,
): PagedOperation<Q, A, Row<A, K>> {
  async function* all(client: LlmRouter, ...[request, options]: Given<Q>): AsyncGenerator<Row<A, K>, void, undefined> {
    let token: string | undefined;
    do {
      const asked = token ? { ...request, page_token: token } : (request ?? {});
      const page = await answerOf<A>(client, method, template, asked, options);
      yield* page[rows] as Row<A, K>[];
      token = page.next_page_token;
    } while (token);
  }
  return Object.assign(operation<Q, A>(method, template), { all });
}

async function answerOf<A>(
  client: LlmRouter,
  method: string,
  template: string,
  request: object,
  options: CallOptions | undefined,
): Promise<A> {
  const answer = await client.send(outgoing(method, template, request), options);
  try {
    return (await answer.json()) as A;
  } catch (error) {
    throw error instanceof SyntaxError ? errorOf(answer, "") : client.told(error, options?.signal);
  }
}

/** Puts each field of a request where it belongs: into the path, and the others into the query or the body. */
function outgoing(method: string, template: string, request: object): Outgoing {
  const rest = new Map(Object.entries(request));
  let path = template.replace(/{(\w+)}/g, (_, name: string) => {
    const value: unknown = rest.get(name);
    if (typeof value !== "string" || value === "") throw new TypeError(`${name} is required`);
    rest.delete(name);
    return encodeURIComponent(value);
  });
  if (method === "POST" || method === "PUT") {
    return { method, path, body: JSON.stringify(Object.fromEntries(rest)), timeoutMs: CALL_MS };
  }
  const query = new URLSearchParams();
  for (const [name, value] of rest) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== undefined && each !== null) query.append(name, String(each));
    }
  }
  if (query.size > 0) path += `?${query}`;
  return { method, path, body: undefined, timeoutMs: CALL_MS };
}
