-- The 7 providers and 21 models of the initial catalogue. What is there already stays as it is.
-- Locks: inserts rows only.
set local lock_timeout = '5s';
set local statement_timeout = '60s';

insert into llm_providers (name, priority, provider_type, requires_byok, api_endpoint) values
('Local vLLM', 100, 'local', false, 'http://localhost:8000/v1'),
('Groq', 95, 'groq', true, 'https://api.groq.com/openai/v1'),
('OpenRouter', 90, 'openrouter', false, 'https://openrouter.ai/api/v1'),
('OpenAI', 80, 'openai', true, 'https://api.openai.com/v1'),
('Anthropic', 80, 'anthropic', true, 'https://api.anthropic.com/v1'),
('Together AI', 70, 'together', true, 'https://api.together.xyz/v1'),
('HuggingFace', 60, 'huggingface', true, 'https://router.huggingface.co/v1')
on conflict (name) do nothing;

-- Context sizes and capabilities are those of the providers' public documentation.
insert into llm_models (
    provider_id, display_name, model_name, power_level, input_cost_per_1m, output_cost_per_1m, avg_latency_ms,
    quality_score, max_context_tokens, capabilities, supports_streaming
)
select
    p.id, m.display_name, m.model_name, m.power_level, m.input_cost, m.output_cost, m.latency_ms, m.quality,
    m.context, string_to_array(m.capabilities, ' '), 'streaming' = any (string_to_array(m.capabilities, ' '))
from llm_providers as p
inner join (values
('Groq', 'Mixtral 8x7B', 'mixtral-8x7b-32768', 'ECO', 0.00, 0.00, 250, 8.0, 32768, 'chat code tools json streaming'),
('Groq', 'Llama 3.1 70B', 'llama-3.1-70b-versatile', 'ECO', 0.00, 0.00, 300, 8.5, 131072, 'chat code tools json streaming'),
('Local vLLM', 'Qwen 2.5 32B', 'Qwen/Qwen2.5-32B-Instruct', 'ECO', 0.00, 0.00, 200, 7.5, 32768, 'chat code tools json streaming'),
('OpenRouter', 'Llama 3.1 405B', 'meta-llama/llama-3.1-405b', 'ECO', 0.10, 0.10, 400, 9.0, 32768, 'chat code streaming'),
('OpenAI', 'GPT-4o Mini', 'gpt-4o-mini', 'BALANCED', 0.15, 0.60, 400, 8.5, 128000, 'chat code vision tools json streaming'),
('Anthropic', 'Claude 3.5 Haiku', 'claude-3-5-haiku-20241022', 'BALANCED', 0.25, 1.25, 350, 8.7, 200000, 'chat code vision tools streaming'),
('OpenRouter', 'Qwen 2.5 72B Instruct', 'qwen/qwen-2.5-72b-instruct', 'BALANCED', 0.35, 0.40, 350, 8.8, 32768, 'chat code tools json streaming'),
('OpenRouter', 'Llama 3.3 70B Instruct', 'meta-llama/llama-3.3-70b-instruct', 'BALANCED', 0.50, 0.50, 300, 9.0, 131072, 'chat code tools json streaming'),
('OpenAI', 'GPT-4o', 'gpt-4o', 'BALANCED', 2.50, 10.00, 500, 9.3, 128000, 'chat code vision tools json streaming'),
('OpenRouter', 'DeepSeek V3', 'deepseek/deepseek-chat', 'BALANCED', 0.27, 1.10, 400, 9.0, 64000, 'chat code tools json streaming'),
('Together AI', 'Llama 3.1 405B', 'meta-llama/Meta-Llama-3.1-405B-Instruct-Turbo', 'BALANCED', 3.00, 3.00, 600, 9.2, 130815, 'chat code tools json streaming'),
('HuggingFace', 'Qwen 2.5 72B', 'Qwen/Qwen2.5-72B-Instruct', 'BALANCED', 0.50, 0.50, 450, 8.5, 32768, 'chat code tools json streaming'),
('Anthropic', 'Claude 3.5 Sonnet', 'claude-3-5-sonnet-20241022', 'PRECISION', 3.00, 15.00, 600, 9.8, 200000, 'chat code vision tools streaming'),
('OpenAI', 'O1 Preview', 'o1-preview', 'PRECISION', 15.00, 60.00, 5000, 9.9, 128000, 'chat code reasoning streaming'),
('OpenAI', 'O1 Mini', 'o1-mini', 'PRECISION', 3.00, 12.00, 3000, 9.5, 128000, 'chat code reasoning streaming'),
('OpenRouter', 'Gemini 2.0 Flash Thinking', 'google/gemini-2.0-flash-thinking-exp', 'PRECISION', 0.00, 0.00, 1500, 9.4, 1048576, 'chat code vision reasoning streaming'),
('OpenRouter', 'DeepSeek R1', 'deepseek/deepseek-r1', 'PRECISION', 0.55, 2.19, 3500, 9.7, 64000, 'chat code reasoning streaming'),
('Anthropic', 'Claude 3 Opus', 'claude-3-opus-20240229', 'PRECISION', 15.00, 75.00, 800, 9.9, 200000, 'chat code vision tools streaming'),
('OpenRouter', 'Llama 3.1 405B Instruct', 'meta-llama/llama-3.1-405b-instruct', 'PRECISION', 3.50, 4.00, 700, 9.5, 131072, 'chat code tools json streaming'),
('OpenRouter', 'Gemini 1.5 Pro', 'google/gemini-pro-1.5', 'PRECISION', 1.25, 5.00, 600, 9.2, 2000000, 'chat code vision tools json streaming'),
('OpenAI', 'GPT-4 Turbo', 'gpt-4-turbo', 'PRECISION', 10.00, 30.00, 800, 9.4, 128000, 'chat code vision tools json streaming')
) as m (provider, display_name, model_name, power_level, input_cost, output_cost, latency_ms, quality, context, capabilities)
    on p.name = m.provider
on conflict (provider_id, model_name) do nothing;
