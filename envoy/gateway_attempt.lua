-- One attempt at one provider. Each provider's cluster runs it around each attempt, with the arguments that bind it to
-- that provider; the cluster `referee` runs it between attempts.
--
-- Which cluster is next stands in the metadata that the route's cluster specifier reads before each attempt. A failure
-- that comes as an answer is judged where it is seen. One without an answer (refused, broken, silent) is seen by nobody,
-- so while an attempt runs, the next cluster is the referee: a listener of this Envoy that answers after a pause. It
-- judges what became of the attempt before it, waits where a pause is due, and when nobody is left it is the answer.

local M = {}

local PLAN, ROUTE, ATTEMPTS = "llmrouter.plan", "llmrouter.route", "llmrouter.attempts"
local NEXT = "x-llmrouter-next" -- on an answer: the router tries again
local REFEREE = "referee"
local CONNECT_MS = 2000 -- connect_timeout of the providers' clusters
local SLACK_MS = 10
local LONGEST_PAUSE_MS = 5000
local QUICK_MS = 5000 -- what breaks later than this is no hiccup
local MAX_REFUSAL_BYTES = 65536
local MAX_HELD_BYTES = 10485760 -- of an answer; Envoy's buffer, request_body_buffer_limit, has 1 MiB more

-- The provider gets these and nothing else. All attempts share one map of headers.
local KEPT = {
  [":method"] = true, [":path"] = true, [":authority"] = true, [":scheme"] = true, ["content-type"] = true,
  ["content-length"] = true, ["transfer-encoding"] = true, ["x-request-id"] = true, ["traceparent"] = true,
  ["tracestate"] = true,
}

-- How providers say that a prompt is too long, in lower case.
local TOO_LONG = {
  "context_length_exceeded", "maximum context length", "context window", "context length", "prompt is too long",
  "context limit", "max_new_tokens", "too many tokens", "reduce the length of the messages",
}

local GONE_IN_A_MOMENT = { ["500"] = true, ["502"] = true, ["503"] = true, ["529"] = true }
local CALLERS_OWN = { ["400"] = true, ["413"] = true, ["422"] = true }
local KEY_REFUSED = { ["401"] = true, ["402"] = true, ["403"] = true }

local is_seeded = false

-- From 100 to 300 ms, or from what the provider asked for to a fifth more.
local function pause_ms(handle, asked_ms)
  if not is_seeded then
    math.randomseed(tonumber(handle:timestampString(EnvoyTimestampResolution.MICROSECOND)) % 2147483647)
    is_seeded = true
  end
  if asked_ms then return math.floor(asked_ms * (1 + 0.2 * math.random())) + math.random(50) end
  return 100 + math.random(200)
end

local function metadata(handle) return handle:streamInfo():dynamicMetadata() end

local function head_for(cluster) return { { name = cluster, clusters = { { cluster_name = cluster, weight = 1 } } } } end

-- Send the next attempt there; `fields` is what the next one must know.
local function go(md, cluster, fields)
  for name, value in pairs(fields or {}) do md:set(ROUTE, name, value) end
  md:set(ROUTE, "priority_groups", head_for(cluster))
end

local function go_to_candidate(md, plan, index)
  go(md, "provider-" .. plan.candidates[index].provider_id, { candidate = index, step = "attempt" })
end

-- In one request a provider gets one second try, however many of its models are in the plan.
local function may_have_second_try(plan, route)
  return not string.find(route.tried_again or "", plan.candidates[route.candidate].provider_id, 1, true)
end

local function take_second_try(md, plan, route)
  md:set(ROUTE, "tried_again", (route.tried_again or "") .. " " .. plan.candidates[route.candidate].provider_id)
end

-- The first candidate after this one that may still be tried, or nil.
local function next_candidate(plan, route, least_context)
  for index = route.candidate + 1, #plan.candidates do
    local candidate = plan.candidates[index]
    local is_given_up = string.find(route.given_up or "", candidate.provider_id, 1, true)
    if not is_given_up and candidate.context > (least_context or 0) then return index end
  end
end

local function give_up_provider(md, plan, route)
  route.given_up = (route.given_up or "") .. " " .. plan.candidates[route.candidate].provider_id
  md:set(ROUTE, "given_up", route.given_up)
end

local function note(handle, md, number, candidate, outcome, started, ended)
  md:set(ATTEMPTS, tostring(number), candidate .. ":" .. outcome .. ":" .. started .. ":" .. (ended or ""))
end

local function parts(entry) return string.match(entry, "^(%d+):([%w_]+):(%d+):(%d*)$") end

local function last_attempt(md)
  local attempts, number = md:get(ATTEMPTS) or {}, 0
  while attempts[tostring(number + 1)] do number = number + 1 end
  if number == 0 then return 0 end
  local candidate, outcome, started = parts(attempts[tostring(number)])
  return number, tonumber(candidate), outcome, tonumber(started)
end

-- Seconds or milliseconds that the answer asks to wait, in milliseconds; a date, or nothing, is nil.
local function retry_after_ms(headers)
  local ms = tonumber(headers:get("retry-after-ms") or "")
  if ms and ms >= 0 then return ms end
  local seconds = tonumber(headers:get("retry-after") or "")
  if seconds and seconds >= 0 then return seconds * 1000 end
end

local function refuse(handle, message)
  handle:logErr(message)
  handle:respond({ [":status"] = "503" }, "")
end

local function credential(handle, index)
  local all, number = handle:streamInfo():filterState():get("llmrouter.credentials"), 0
  for name, value in string.gmatch(all or "", "([^\t]*)\t([^\t]*)\t") do
    number = number + 1
    if number == index then return name, value end
  end
end

local function begin(handle, provider_id, authority, prefix)
  local body = handle:body(true)
  local md, headers = metadata(handle), handle:headers()
  local plan, route = md:get(PLAN), md:get(ROUTE)
  if not plan or not route then return refuse(handle, "an attempt without a plan") end
  local index = route.candidate
  local candidate = plan.candidates[index]
  -- What is for one provider never goes to another, whatever went wrong before.
  if not candidate or candidate.provider_id ~= provider_id then
    return refuse(handle, "an attempt at another provider than planned")
  end
  local name, value = credential(handle, index)
  if not name then return refuse(handle, "an attempt without its credential") end
  local dropped = {}
  for key in pairs(headers) do if not KEPT[key] then dropped[#dropped + 1] = key end end
  for _, key in ipairs(dropped) do headers:remove(key) end
  headers:replace(":authority", authority)
  headers:replace(":path", prefix .. candidate.path)
  headers:replace("content-type", "application/json")
  headers:replace("accept", plan.stream and "text/event-stream" or "application/json")
  headers:replace("accept-encoding", "identity")
  headers:replace("user-agent", "llmrouter")
  if name ~= "-" then headers:replace(name, value) end
  body:setBytes(candidate.head .. body:getBytes(0, body:length()))
  local number = last_attempt(md) + 1
  note(handle, md, number, index, "open", handle:timestamp())
  go(md, REFEREE, { step = "judge" })
end

-- What failed was judged: try this one again, or the next, or end.
local function after_failure(handle, md, plan, route, headers, may_again, asked_ms, least_context)
  local longest = math.min(LONGEST_PAUSE_MS, plan.first_byte_ms * 0.75) -- the referee has no more time than a provider
  if may_again and (asked_ms or 0) <= longest and may_have_second_try(plan, route) then
    take_second_try(md, plan, route)
    go(md, REFEREE, { step = "again", pause_ms = pause_ms(handle, asked_ms) })
  else
    local index = next_candidate(plan, route, least_context)
    if index then go_to_candidate(md, plan, index) else go(md, REFEREE, { step = "end" }) end
  end
  headers:replace(NEXT, "1")
end

local function lower_text(body)
  return string.lower(body:getBytes(0, math.min(body:length(), MAX_REFUSAL_BYTES)))
end

local function is_too_long(text)
  for _, words in ipairs(TOO_LONG) do if string.find(text, words, 1, true) then return true end end
  return false
end

-- A provider may say the key back in what it writes.
local function without_secret(handle, body, index)
  local _, value = credential(handle, index)
  local secret = string.match(value or "", "(%S+)$")
  if not secret or #secret < 8 then return end
  local text, from, kept = body:getBytes(0, body:length()), 1, {}
  if not string.find(text, secret, 1, true) then return end
  while true do
    local first, last = string.find(text, secret, from, true)
    if not first then break end
    kept[#kept + 1] = string.sub(text, from, first - 1)
    from = last + 1
  end
  kept[#kept + 1] = string.sub(text, from)
  body:setBytes(table.concat(kept, "[redacted]"))
end

-- Whether these bytes can be an answer in one piece: a document from its beginning to its end, and no error.
local function is_document(body, headers)
  local length = body:length()
  if length == 0 then return false end
  if headers:get("content-encoding") then return true end
  local few = math.min(length, 256)
  local first, last = body:getBytes(0, few), body:getBytes(length - few, few)
  return string.find(first, "^%s*{") ~= nil and string.find(last, "}%s*$") ~= nil
    and not string.find(first, '^%s*{%s*"error"%s*:%s*["{]')
end

local function judge(handle)
  local md, headers = metadata(handle), handle:headers()
  local plan = md:get(PLAN)
  if not plan then return end
  local status = headers:get(":status")
  local number, index, _, started = last_attempt(md)
  local now = handle:timestamp()
  headers:remove(NEXT)

  if status == "200" then
    local kind = string.lower(headers:get("content-type") or "")
    local is_wanted = string.find(kind, plan.stream and "^text/event%-stream" or "^application/json") ~= nil
      and headers:get("content-length") ~= "0"
    if is_wanted and not plan.stream and (tonumber(headers:get("content-length") or "") or 0) <= MAX_HELD_BYTES then
      -- Held until it is whole: what breaks, stalls or is cut in its middle can still be had from the next one.
      local body = handle:body(true)
      md, headers, now = metadata(handle), handle:headers(), handle:timestamp() -- those before that wait are stale
      is_wanted = is_document(body, headers)
    end
    note(handle, md, number, index, is_wanted and status or "strange", started, now)
    if is_wanted then return end
    local route = md:get(ROUTE)
    return after_failure(handle, md, plan, route, headers, false)
  end
  local route = md:get(ROUTE)
  if tonumber(status) < 400 then -- a redirect is not followed: the key would go elsewhere
    note(handle, md, number, index, "strange", started, now)
    return after_failure(handle, md, plan, route, headers, false)
  end
  if CALLERS_OWN[status] then
    local body = handle:body(true)
    md = metadata(handle) -- what was fetched before that wait is stale
    local is_long = is_too_long(lower_text(body))
    note(handle, md, number, index, is_long and "too_long" or status, started, now)
    local context = plan.candidates[index].context
    if is_long and next_candidate(plan, route, context) then
      return after_failure(handle, md, plan, route, handle:headers(), false, nil, context)
    end
    without_secret(handle, body, index)
    return
  end
  note(handle, md, number, index, status, started, now)
  if KEY_REFUSED[status] or status == "408" or status == "504" then
    give_up_provider(md, plan, route)
    return after_failure(handle, md, plan, route, headers, false)
  end
  local asked_ms = retry_after_ms(headers)
  if asked_ms then md:set(ROUTE, "retry_after_s", math.min(route.retry_after_s or math.huge, math.ceil(asked_ms / 1000))) end
  local may_again = GONE_IN_A_MOMENT[status] or (status == "429" and asked_ms ~= nil)
  if headers:get("retry-after") and not asked_ms then may_again = false end -- a date: not a moment
  after_failure(handle, md, plan, route, headers, may_again, asked_ms)
end

-- The referee's request: judge what ended without an answer, and say how long the pause is.
local function arbitrate(handle)
  handle:body(true):setBytes("")
  local md, headers = metadata(handle), handle:headers()
  local plan, route = md:get(PLAN), md:get(ROUTE)
  if not plan or not route then return end
  local delay
  if route.step == "judge" then
    local number, index, _, started = last_attempt(md)
    local now = handle:timestamp()
    local took = now - started
    local is_silent = took >= plan.first_byte_ms - SLACK_MS
    local was_connecting = took >= CONNECT_MS - SLACK_MS and took <= CONNECT_MS + 200
    local was_quick = took < math.min(QUICK_MS, plan.first_byte_ms / 2)
    note(handle, md, number, index, is_silent and "silent" or "broken", started, now)
    if was_quick and not was_connecting and may_have_second_try(plan, route) then
      delay = pause_ms(handle)
      take_second_try(md, plan, route)
      go_to_candidate(md, plan, index)
    else
      give_up_provider(md, plan, route)
      local index_after = next_candidate(plan, route)
      if index_after then
        go_to_candidate(md, plan, index_after)
      else
        go(md, REFEREE, { step = "end" })
      end
    end
  elseif route.step == "again" then
    delay = route.pause_ms
    go_to_candidate(md, plan, route.candidate)
  end
  local dropped = {}
  for key in pairs(headers) do if not KEPT[key] then dropped[#dropped + 1] = key end end
  for _, key in ipairs(dropped) do headers:remove(key) end
  headers:replace(":path", "/")
  if delay then headers:replace("x-envoy-fault-delay-request", tostring(math.floor(delay))) end
end

local SAID = {
  silent = "did not answer in time", broken = "could not be reached or broke the connection off",
  strange = "gave an answer that is none", too_long = "takes no prompt of this length", ["401"] = "refused the key",
  ["402"] = "refused payment", ["403"] = "refused the key", ["408"] = "timed out",
  ["429"] = "takes no more requests for now", ["504"] = "timed out",
}

local function quoted(text) return '"' .. string.gsub(text, '[%c"\\]', " ") .. '"' end

-- The referee's answer: go on, or, when nobody is left, tell what happened.
local function conclude(handle)
  local md, headers = metadata(handle), handle:headers()
  local plan, route = md:get(PLAN), md:get(ROUTE)
  if not plan or not route or route.step ~= "end" then
    headers:replace(NEXT, "1")
    return
  end
  local attempts, told, number, all_limited, all_silent = md:get(ATTEMPTS) or {}, {}, 1, true, true
  while attempts[tostring(number)] do
    local index, outcome = parts(attempts[tostring(number)])
    local candidate = plan.candidates[tonumber(index)]
    told[number] = candidate.provider .. " (" .. candidate.model .. ") "
      .. (SAID[outcome] or ("answered with status " .. outcome))
    all_limited = all_limited and outcome == "429"
    all_silent = all_silent and (outcome == "silent" or outcome == "408" or outcome == "504")
    number = number + 1
  end
  local status, kind, code = "502", "server_error", "providers_failed"
  if all_limited then status, kind, code = "429", "rate_limit_error", "providers_rate_limited" end
  if all_silent then status, code = "504", "providers_timed_out" end
  local body = handle:body(true)
  headers = handle:headers()
  headers:replace(":status", status)
  headers:replace("content-type", "application/json")
  if all_limited then headers:replace("retry-after", tostring(math.floor(route.retry_after_s or 1))) end
  body:setBytes('{"error":{"message":' .. quoted("no provider served this request: " .. table.concat(told, "; "))
    .. ',"type":"' .. kind .. '","param":null,"code":"' .. code .. '"}}')
end

-- Envoy would go on with a request whose filter failed.
function M.on_request(handle, provider_id, authority, prefix)
  local work = provider_id == REFEREE and arbitrate or begin
  local ok, problem = pcall(work, handle, provider_id, authority, prefix)
  if not ok then refuse(handle, "gateway_attempt.lua failed: " .. tostring(problem)) end
end

function M.on_response(handle, provider_id)
  if provider_id == REFEREE then conclude(handle) else judge(handle) end
end

return M
