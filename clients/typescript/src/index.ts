export * from "./api.js";
export { LlmRouter, type CallOptions, type LlmRouterOptions, type Token } from "./client.js";
export type { Download, Operation, PagedOperation } from "./call.js";
export { LlmRouterError, hasReason, type DetailsOf, type FailureReason } from "./errors.js";
