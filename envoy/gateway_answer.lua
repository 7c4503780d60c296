-- The provider's answer on its way to the client: says who served it, lets nothing else of the provider's headers
-- through, and reads how many tokens were used. Bytes go on as they come; what is read of them is for the access log.

local PLAN, ROUTE, ATTEMPTS = "llmrouter.plan", "llmrouter.route", "llmrouter.attempts"
local USAGE, STREAM = "llmrouter.usage", "llmrouter.stream"
local TAIL_BYTES = 16384
local MAX_EVENT_BYTES = 1048576 -- of an event that is read before it goes on; no event is so large

local KEPT = {
  [":status"] = true, ["content-type"] = true, ["content-encoding"] = true, ["content-length"] = true, ["date"] = true,
}

local find, sub = string.find, string.sub

-- How many attempts there were, and at which candidate the last one.
local function last_attempt(attempts)
  local number = 0
  while attempts[tostring(number + 1)] do number = number + 1 end
  return number, tonumber(string.match(attempts[tostring(number)] or "", "^(%d+):"))
end

-- Note the last usage object of a text. Inside JSON's strings the quotes are escaped, so that none of these can be there.
local function note_usage(md, text)
  local from, at = 1, nil
  while true do
    local first, last = find(text, '"usage"%s*:%s*{', from)
    if not first then break end
    at, from = last, last + 1
  end
  if not at then return end
  local usage = sub(text, at)
  local function number(name) return tonumber(string.match(usage, '"' .. name .. '"%s*:%s*(%d+)')) end
  local input, output = number("prompt_tokens"), number("completion_tokens")
  if not input or not output then return end
  md:set(USAGE, "input_tokens", input)
  md:set(USAGE, "output_tokens", output)
  md:set(USAGE, "cached_tokens", number("cached_tokens") or 0)
  md:set(USAGE, "reasoning_tokens", number("reasoning_tokens") or 0)
end

local function whole(handle)
  local tail = ""
  for chunk in handle:bodyChunks() do
    local length = chunk:length()
    if length >= TAIL_BYTES then
      tail = chunk:getBytes(length - TAIL_BYTES, TAIL_BYTES)
    elseif length > 0 then
      tail = sub(tail .. chunk:getBytes(0, length), -TAIL_BYTES)
    end
  end
  note_usage(handle:streamInfo():dynamicMetadata(), tail)
end

-- Lines end with LF or CRLF, or (hardly ever) all with CR alone. Inside JSON's strings neither is there as such.
local function is_cr_alone(text) return not find(text, "\n", 1, true) and find(text, "\r", 1, true) ~= nil end

-- Where the last whole event of a text ends; 0 if none does.
local function end_of_events(text)
  if sub(text, -2) == "\n\n" then return #text end
  local blank, from, at = is_cr_alone(text) and "\r\r" or "\n\r?\n", 1, 0
  while true do
    local _, last = find(text, blank, from)
    if not last then return at end
    at, from = last, last + 1
  end
end

-- How many lines begin so. The text begins with a line.
local function count_lines(text, beginning)
  local number = sub(text, 1, #beginning) == beginning and 1 or 0
  local wanted, from = (is_cr_alone(text) and "\r" or "\n") .. beginning, 1
  while true do
    local _, last = find(text, wanted, from, true)
    if not last then return number end
    number, from = number + 1, last + 1
  end
end

local function says_done(text)
  return find(text, "[DONE]", 1, true) ~= nil
    and count_lines(text, "data: [DONE]") + count_lines(text, "data:[DONE]") > 0
end

-- Inside JSON's strings the quotes are escaped: this is a member, wherever a provider puts it.
local function tells_error(text)
  return find(text, '"error"', 1, true) ~= nil and find(text, '"error"%s*:%s*["{]') ~= nil
end

local function tells_usage(text)
  return find(text, '"usage"', 1, true) ~= nil and find(text, '"usage"%s*:%s*{') ~= nil
end

local function only_tells_usage(event) return find(event, '"choices"%s*:%s*%[%s*%]') ~= nil and tells_usage(event) end

-- Take out the events that are such.
local function without(text, is_such)
  local blank, kept, from = is_cr_alone(text) and "\r\r" or "\n\r?\n", {}, 1
  while from <= #text do
    local _, last = find(text, blank, from)
    last = last or #text
    local event = sub(text, from, last)
    if not is_such(event) then kept[#kept + 1] = event end
    from = last + 1
  end
  return table.concat(kept)
end

local CUT = 'event: error\ndata: {"error":{"message":"the provider\'s stream ended before the answer was complete",'
  .. '"type":"server_error","param":null,"code":"stream_interrupted"}}\n\n'

local function events(handle, hides_usage)
  local held, number, bytes, mark = "", 0, 0, 1 -- held: the beginning of an event that is not whole yet
  local is_done, is_finished, has_error = false, false, false

  -- Note what these events say, and return what of them goes on.
  local function pass(text)
    number = number + count_lines(text, "data:")
    is_finished = is_finished or find(text, '"finish_reason"%s*:%s*"') ~= nil
    has_error = has_error or tells_error(text)
    if says_done(text) then
      is_done = true
      if has_error then text = without(text, says_done) end -- what broke is not done
    end
    if tells_usage(text) then
      note_usage(handle:streamInfo():dynamicMetadata(), text)
      if hides_usage then text = without(text, only_tells_usage) end
    end
    return text
  end

  local last, passed
  for chunk in handle:bodyChunks() do
    last, passed = chunk, ""
    local length = chunk:length()
    if length > 0 then
      local came = chunk:getBytes(0, length)
      bytes = bytes + length
      local text = held .. came
      local at = end_of_events(text)
      if at == 0 and #text > MAX_EVENT_BYTES then at = #text end -- it goes on as it is
      held = sub(text, at + 1)
      passed = pass(sub(text, 1, at))
      if passed ~= came then chunk:setBytes(passed) end
      if number >= mark then
        local md = handle:streamInfo():dynamicMetadata()
        md:set(STREAM, "events", number)
        md:set(STREAM, "bytes", bytes)
        mark = number * 2
      end
    end
  end

  -- The last chunk, which may be empty, has not gone on yet. An event without its end is none, unless the stream is whole.
  local rest = pass(held)
  if not is_done and not is_finished and not has_error then rest = CUT end
  if last and rest ~= "" then pcall(last.setBytes, last, passed .. rest) end -- after trailers, it has gone on
  local md = handle:streamInfo():dynamicMetadata()
  md:set(STREAM, "events", number)
  md:set(STREAM, "bytes", bytes)
  md:set(STREAM, "ended", has_error and "cut" or is_done and "done" or is_finished and "finished" or "cut")
end

function envoy_on_response(handle)
  local md = handle:streamInfo():dynamicMetadata()
  local plan, attempts = md:get(PLAN), md:get(ATTEMPTS)
  if not plan or not attempts then return end
  local headers = handle:headers()
  local status, kind = headers:get(":status"), headers:get("content-type") or ""
  local number, index = last_attempt(attempts)
  if index and #plan.candidates > index then -- nobody asks after those that were not tried: reports are the shorter
    local tried = {}
    for each = 1, index do tried[each] = plan.candidates[each] end
    md:set(PLAN, "candidates", tried)
  end
  local retry_after = tonumber(status) >= 400 and headers:get("retry-after")
  local dropped = {}
  for name in pairs(headers) do if not KEPT[name] then dropped[#dropped + 1] = name end end
  for _, name in ipairs(dropped) do headers:remove(name) end
  if retry_after then headers:replace("retry-after", retry_after) end
  headers:replace("x-llmrouter-decision-id", plan.decision_id)
  headers:replace("x-llmrouter-attempts", tostring(number))
  local candidate = plan.candidates[index]
  if candidate and (md:get(ROUTE) or {}).step ~= "end" then -- it is this provider's answer, not ours about all of them
    headers:replace("x-llmrouter-provider", candidate.provider)
    headers:replace("x-llmrouter-model", candidate.model)
  end
  if status ~= "200" then return end
  if plan.stream and find(kind, "^text/event%-stream") then
    headers:remove("content-length")
    headers:replace("cache-control", "no-cache")
    headers:replace("x-accel-buffering", "no")
    events(handle, plan.hide_usage)
  else
    whole(handle)
  end
end
