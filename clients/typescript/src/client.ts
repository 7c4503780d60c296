import { LlmRouterError, errorOf } from "./errors.js";

/**
 * A bearer token, or what returns one: asked before each call, so keep the token while it is good. It is asked once more
 * with `isRefused` when the server refused the one it gave.
 */
export type Token = string | ((asked: { readonly isRefused: boolean }) => string | Promise<string>);

export interface LlmRouterOptions {
  /** Where the edge is, for instance `https://llm.example.com`. In a browser the default is the page's own origin. */
  readonly baseUrl?: string | URL;
  /**
   * The token. Without one the browser sends its cookie `session`. Then a call that changes something must come from a page
   * of the edge's own origin, or of one that its operator allows: the browser itself says so, there is nothing to add.
   */
  readonly token?: Token;
  /** Milliseconds that a call may take, its repetitions included. Default 15,000; exports 300,000. */
  readonly timeoutMs?: number;
  /** How often a call that only reads is sent again when there is no connection, or the service is unavailable. Default 2. */
  readonly retries?: number;
  /** Instead of the global `fetch`. */
  readonly fetch?: typeof fetch;
}

export interface CallOptions {
  /** Ends the call; it then rejects with the signal's own reason. */
  readonly signal?: AbortSignal;
  /** Milliseconds that this call may take. */
  readonly timeoutMs?: number;
  /** Its id in logs and answers: up to 128 characters of `[A-Za-z0-9._-]`. */
  readonly requestId?: string;
}

export interface Outgoing {
  readonly method: string;
  readonly path: string;
  readonly body: string | undefined;
  readonly timeoutMs: number;
}

const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 2000;

/** Where to send calls, and as whom. Pass it to the functions of this package. */
export class LlmRouter {
  readonly #base: string;
  readonly #token: Token | undefined;
  readonly #timeoutMs: number | undefined;
  readonly #retries: number;
  readonly #fetch: typeof fetch;

  constructor(options: LlmRouterOptions = {}) {
    const page = (globalThis as { location?: Location }).location;
    const base = options.baseUrl || page?.origin;
    if (!base) throw new TypeError("baseUrl is needed outside of a browser");
    const url = new URL(base, page?.href);
    if (!/^https?:$/.test(url.protocol)) throw new TypeError(`baseUrl must begin with https:// or http://, not with ${url.protocol}`);
    this.#base = url.href.replace(/\/+$/, "");
    this.#token = options.token;
    this.#timeoutMs = options.timeoutMs;
    this.#retries = options.retries ?? 2;
    this.#fetch = options.fetch ?? ((...sent) => fetch(...sent));
  }

  /** Sends a call and returns the answer, which is a success. Not for users: the package's functions call it. */
  async send(outgoing: Outgoing, options: CallOptions = {}): Promise<Response> {
    const deadline = AbortSignal.timeout(options.timeoutMs ?? this.#timeoutMs ?? outgoing.timeoutMs);
    const signal = options.signal ? AbortSignal.any([options.signal, deadline]) : deadline;
    let isRefused = false;
    for (let attempt = 0; ; attempt += 1) {
      const authorization = await this.#authorization(isRefused);
      let failure: unknown;
      try {
        const answer = await this.#once(outgoing, options, signal, authorization);
        if (answer.ok) return answer;
        failure = errorOf(answer, await answer.text());
      } catch (error) {
        failure = this.told(error, options.signal, deadline.aborted);
      }
      if (!(failure instanceof LlmRouterError)) throw failure;
      const { reason, status, retryAfterMs } = failure;
      if (status === 401 && typeof this.#token === "function" && !isRefused) {
        isRefused = true;
      } else if ((status === 503 || reason === "UNAVAILABLE") && outgoing.method === "GET" && attempt < this.#retries) {
        const ms = Math.min(retryAfterMs ?? FIRST_PAUSE_MS * 2 ** attempt, LONGEST_PAUSE_MS);
        await pause(ms, signal).catch((error: unknown) => Promise.reject(this.told(error, options.signal, deadline.aborted)));
      } else {
        throw failure;
      }
    }
  }

  /** Returns how a failure is told: the API's errors and the caller's own signal as they are. */
  told(error: unknown, signal: AbortSignal | undefined, isLate = false): unknown {
    if (error instanceof LlmRouterError) return error;
    if (signal?.aborted) return signal.reason;
    return isLate || (error instanceof DOMException && error.name === "TimeoutError")
      ? new LlmRouterError("the deadline passed before the answer was there", { reason: "DEADLINE_EXCEEDED", status: 0, cause: error })
      : new LlmRouterError("the service could not be reached", { reason: "UNAVAILABLE", status: 0, cause: error });
  }

  /** Refuses by itself what no header can hold: `fetch` would show it in its error. */
  async #authorization(isRefused: boolean): Promise<string | undefined> {
    if (this.#token === undefined) return undefined;
    const given: unknown = typeof this.#token === "function" ? await this.#token({ isRefused }) : this.#token;
    const token = typeof given === "string" ? given.trim() : "";
    if (!/^[!-~]+$/.test(token)) throw new TypeError("the token is empty or holds characters that no token has");
    return `Bearer ${token}`;
  }

  #once(outgoing: Outgoing, options: CallOptions, signal: AbortSignal, authorization: string | undefined): Promise<Response> {
    const headers: Record<string, string> = {};
    if (outgoing.body !== undefined) headers["content-type"] = "application/json";
    if (options.requestId !== undefined) headers["x-request-id"] = options.requestId;
    if (authorization !== undefined) headers["authorization"] = authorization;
    return this.#fetch(this.#base + outgoing.path, {
      method: outgoing.method,
      headers,
      body: outgoing.body ?? null,
      credentials: authorization === undefined ? "include" : "omit",
      redirect: "error", // the API has none, and a token must not follow one
      signal,
    });
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const over = () => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", over);
      resolve();
    }, ms);
    signal.addEventListener("abort", over, { once: true });
    if (signal.aborted) over();
  });
}
