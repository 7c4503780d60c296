-- Made by `make generate` from the protos; do not edit.
--
-- bindings: method, path (`*` stands for one segment), the message that the body holds, the fields bound by the path.
-- messages: each field's names; `free` takes any JSON, `message` an object of that message, `map` an object with any
-- keys, whose values are of that message (or plain, when empty); any other field is plain: it holds no object.
return {
  bindings = {
    {"DELETE", "/api/v2/llm/byok/*", "", "key_id"},
    {"DELETE", "/api/v2/llm/providers/*", "", "provider_id"},
    {"GET", "/api/v2/llm/byok", ""},
    {"GET", "/api/v2/llm/models", ""},
    {"GET", "/api/v2/llm/providers", ""},
    {"GET", "/api/v2/llm/settings", ""},
    {"GET", "/api/v2/llm/usage", ""},
    {"POST", "/api/v2/llm/byok", "llmrouter.v2.StoreKeyRequest"},
    {"POST", "/api/v2/llm/providers", "llmrouter.v2.CreateProviderRequest"},
    {"POST", "/api/v2/llm/route", "llmrouter.v2.RouteRequest"},
    {"PUT", "/api/v2/llm/providers/*", "llmrouter.v2.UpdateProviderRequest", "provider_id"},
    {"PUT", "/api/v2/llm/settings", "llmrouter.v2.UpdateSettingsRequest"},
  },
  messages = {
    ["llmrouter.v2.CreateProviderRequest"] = {
      {"name"},
      {"provider_type", "providerType"},
      {"api_endpoint", "apiEndpoint"},
      {"requires_byok", "requiresByok"},
      {"is_enabled", "isEnabled"},
      {"priority"},
      {"config", free = true},
    },
    ["llmrouter.v2.RouteRequest"] = {
      {"power_level", "powerLevel"},
      {"task_type", "taskType"},
      {"fallback_count", "fallbackCount"},
      {"required_capabilities", "requiredCapabilities"},
      {"min_context_tokens", "minContextTokens"},
      {"estimated_input_tokens", "estimatedInputTokens"},
      {"estimated_output_tokens", "estimatedOutputTokens"},
      {"user_id", "userId"},
    },
    ["llmrouter.v2.RoutingConfig"] = {
      {"strategy"},
      {"cost_weight", "costWeight"},
      {"latency_weight", "latencyWeight"},
      {"quality_weight", "qualityWeight"},
    },
    ["llmrouter.v2.StoreKeyRequest"] = {
      {"provider_id", "providerId"},
      {"api_key", "apiKey"},
      {"metadata", free = true},
    },
    ["llmrouter.v2.UpdateProviderRequest"] = {
      {"provider_id", "providerId"},
      {"name"},
      {"provider_type", "providerType"},
      {"api_endpoint", "apiEndpoint"},
      {"requires_byok", "requiresByok"},
      {"is_enabled", "isEnabled"},
      {"priority"},
      {"config", free = true},
    },
    ["llmrouter.v2.UpdateSettingsRequest"] = {
      {"preferred_power_level", "preferredPowerLevel"},
      {"routing_config", "routingConfig", message = "llmrouter.v2.RoutingConfig"},
      {"monthly_budget_usd", "monthlyBudgetUsd"},
      {"clear_monthly_budget", "clearMonthlyBudget"},
    },
  },
}
