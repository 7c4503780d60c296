-- Refuses what the transcoder would let through in silence: JSON fields that do not exist, fields given twice, and
-- bodies that only a lenient parser reads. Then puts the session's token where the server looks for one.
--
-- Whatever this filter is in doubt about it refuses, and an error inside it answers 500: Envoy would go on without it.
-- It runs on Envoy's worker thread, so bodies are walked byte by byte (LuaJIT compiles that; patterns it does not).
local fields = require("request_fields")

local MAX_DEPTH = 32

local byte, sub, char = string.byte, string.sub, string.char

-- A spec says what a value may hold: FREE anything, PLAIN no object with fields, else a message or a map.
local FREE, PLAIN = { free = true }, { fields = {} }
local messages = {}

local function message_spec(name)
  if name == "" then return PLAIN end
  if messages[name] then return messages[name] end
  local spec = { fields = {} }
  messages[name] = spec -- before its fields: messages may be recursive
  for _, field in ipairs(fields.messages[name]) do
    local value = PLAIN
    if field.free then value = FREE
    elseif field.map then value = { values = message_spec(field.map) }
    elseif field.message then value = message_spec(field.message) end
    for _, spelling in ipairs(field) do spec.fields[spelling] = { name = field[1], value = value } end
  end
  return spec
end

local function split(path)
  local segments = {}
  for segment in string.gmatch(path, "/([^/]*)") do segments[#segments + 1] = segment end
  return segments
end

-- What a path takes; those without a variable segment by method and path.
local bindings, exact = {}, {}
for _, binding in ipairs(fields.bindings) do
  local bound = {}
  for i = 4, #binding do bound[binding[i]] = true end
  local spec = { fields = message_spec(binding[3]).fields, bound = bound }
  bindings[#bindings + 1] = { method = binding[1], segments = split(binding[2]), spec = spec }
  if not string.find(binding[2], "*", 1, true) then exact[binding[1] .. binding[2]] = spec end
end

-- `*` stands for one segment, `*:verb` for one that ends in :verb.
local function segment_matches(pattern, segment)
  if sub(pattern, 1, 1) ~= "*" then return pattern == segment end
  local verb = sub(pattern, 2)
  if verb == "" then return segment ~= "" and not string.find(segment, ":", 1, true) end
  return #segment > #verb and sub(segment, -#verb) == verb
end

-- Returns the spec of the body, or nil when there is no such path.
local function find_spec(method, path)
  path = path or "" -- CONNECT has none
  if exact[method .. path] then return exact[method .. path] end
  local segments = split((string.gsub(path, "[?#].*$", "")))
  for _, binding in ipairs(bindings) do
    local matches = binding.method == method and #binding.segments == #segments
    for i = 1, matches and #segments or 0 do
      matches = matches and segment_matches(binding.segments[i], segments[i])
    end
    if matches then return binding.spec end
  end
  return nil
end

-- The walker. Each function takes the text and an index, and returns the index after what it read. What it refuses it
-- raises as a table, so that any other error is known to be a fault.
local function refuse(message) error({ message = message }, 0) end

local function not_json(i) refuse("the body is not valid JSON at byte " .. i) end

local function skip_space(s, i)
  local c = byte(s, i)
  while c == 32 or c == 10 or c == 13 or c == 9 do
    i = i + 1
    c = byte(s, i)
  end
  return i
end

local function is_hex(c)
  return c ~= nil and (c >= 48 and c <= 57 or c >= 65 and c <= 70 or c >= 97 and c <= 102)
end

local UNESCAPED = { [34] = '"', [92] = "\\", [47] = "/", [98] = "\b", [102] = "\f", [110] = "\n", [114] = "\r", [116] = "\t" }

local function read_string(s, i) -- at the opening quote; also returns whether there are escapes
  local escaped = false
  i = i + 1
  while true do
    local c = byte(s, i)
    if c == nil or c < 32 then not_json(i) end
    if c == 34 then return i + 1, escaped end
    if c == 92 then
      escaped = true
      local kind = byte(s, i + 1)
      if kind == 117 then
        for j = i + 2, i + 5 do
          if not is_hex(byte(s, j)) then not_json(i) end
        end
        i = i + 6
      elseif UNESCAPED[kind or 0] then
        i = i + 2
      else
        not_json(i)
      end
    else
      i = i + 1
    end
  end
end

local function unescape(s) -- what is not ASCII becomes `?`: no field's name has either
  local parts, i = {}, 1
  while i <= #s do
    local c = byte(s, i)
    if c ~= 92 then
      parts[#parts + 1] = char(c)
      i = i + 1
    elseif byte(s, i + 1) == 117 then
      local code = tonumber(sub(s, i + 2, i + 5), 16)
      parts[#parts + 1] = code < 128 and char(code) or "?"
      i = i + 6
    else
      parts[#parts + 1] = UNESCAPED[byte(s, i + 1)]
      i = i + 2
    end
  end
  return table.concat(parts)
end

local function skip_digits(s, i)
  local start, c = i, byte(s, i)
  while c and c >= 48 and c <= 57 do
    i = i + 1
    c = byte(s, i)
  end
  if i == start then not_json(i) end
  return i
end

local function read_number(s, i)
  if byte(s, i) == 45 then i = i + 1 end
  if byte(s, i) == 48 then i = i + 1 else i = skip_digits(s, i) end
  if byte(s, i) == 46 then i = skip_digits(s, i + 1) end
  local c = byte(s, i)
  if c == 101 or c == 69 then
    c = byte(s, i + 1)
    i = skip_digits(s, (c == 43 or c == 45) and i + 2 or i + 1)
  end
  return i
end

local read_value

local function path_of(trail, depth)
  local path = ""
  for i = 1, depth do
    local step = trail[i]
    path = path .. (type(step) == "number" and "[" .. step .. "]" or (path == "" and step or "." .. step))
  end
  path = string.gsub(path, "[^%w_.%[%]$@ -]", "?") -- printable, and nothing that needs quoting in a log
  return #path > 128 and sub(path, 1, 125) .. "..." or path
end

local function read_object(s, i, spec, trail, depth)
  local known, seen = spec.fields, spec.fields and {}
  i = skip_space(s, i + 1)
  if byte(s, i) == 125 then return i + 1 end
  while true do
    if byte(s, i) ~= 34 then not_json(i) end
    local start, escaped = i
    i, escaped = read_string(s, i)
    local value = spec.free and spec or spec.values
    local key = ""
    if not spec.free then -- free-form keys, the most numerous, are never copied
      key = sub(s, start + 1, i - 2)
      if escaped then key = unescape(key) end
    end
    trail[depth] = key
    if known then
      local field = known[key]
      if not field then refuse('unknown field "' .. path_of(trail, depth) .. '"') end
      if spec.bound and spec.bound[field.name] then
        refuse('the field "' .. field.name .. '" is set by the path')
      end
      if seen[field.name] then refuse('the field "' .. path_of(trail, depth) .. '" is given twice') end
      seen[field.name] = true
      value = field.value
    end
    i = skip_space(s, i)
    if byte(s, i) ~= 58 then not_json(i) end
    i = skip_space(s, read_value(s, skip_space(s, i + 1), value, trail, depth + 1))
    local c = byte(s, i)
    if c == 125 then return i + 1 end
    if c ~= 44 then not_json(i) end
    i = skip_space(s, i + 1)
  end
end

local function read_array(s, i, spec, trail, depth)
  local count = 0
  i = skip_space(s, i + 1)
  if byte(s, i) == 93 then return i + 1 end
  while true do
    trail[depth] = count
    i = skip_space(s, read_value(s, i, spec, trail, depth + 1))
    local c = byte(s, i)
    if c == 93 then return i + 1 end
    if c ~= 44 then not_json(i) end
    i = skip_space(s, i + 1)
    count = count + 1
  end
end

function read_value(s, i, spec, trail, depth)
  local c = byte(s, i)
  if c == 123 or c == 91 then
    if depth > MAX_DEPTH then refuse("the body is nested more than " .. MAX_DEPTH .. " levels deep") end
    if c == 123 then
      if spec == PLAIN then refuse('the field "' .. path_of(trail, depth - 1) .. '" must not be an object') end
      return read_object(s, i, spec, trail, depth)
    end
    return read_array(s, i, spec, trail, depth)
  end
  if c == 34 then return (read_string(s, i)) end
  if sub(s, i, i + 3) == "true" or sub(s, i, i + 3) == "null" then return i + 4 end
  if sub(s, i, i + 4) == "false" then return i + 5 end
  return read_number(s, i)
end

local function check_body(s, spec)
  local start = skip_space(s, 1)
  if byte(s, start) ~= 123 then refuse("the body must be a JSON object") end
  local last = skip_space(s, read_value(s, start, spec, {}, 1))
  if last <= #s then not_json(last) end
end

local function is_json(content_type)
  local kind = string.lower(content_type or "")
  return string.find(kind, "^application/json%s*$") or string.find(kind, "^application/json%s*;")
end

local function session_of(cookies)
  for name, value in string.gmatch(cookies or "", "([^=;%s]+)=([^;]*)") do
    if name == "session" then return (string.gsub(value, '^"(.*)"$', "%1")) end
  end
  return nil
end

-- Returns a status and a message to refuse with, or nothing. All that is to be known of the headers, and done to them,
-- comes before the wait for the body, after which they would have to be fetched again.
local function check(handle)
  local headers = handle:headers()
  local spec = find_spec(headers:get(":method"), headers:get(":path"))
  if not spec then return 404, "no such path or method" end
  local may_be_a_form = false
  if not headers:get("authorization") then
    may_be_a_form = not is_json(headers:get("content-type"))
    -- The server reads the token from one place only: a session cookie becomes a bearer token. jwt_authn has verified
    -- it, and the csrf filter has done its work, so nothing after this asks where the token came from.
    local session = session_of(headers:get("cookie"))
    if session then headers:replace("authorization", "Bearer " .. session) end
  end
  local timeout = headers:get("grpc-timeout")
  if timeout and not string.find(timeout, "^%d%d?%d?%d?%d?%d?%d?%d?[HMSmun]$") then headers:remove("grpc-timeout") end
  local body = handle:body() -- waits until all of it is here; nil when there is none
  local length = body and body:length() or 0
  if length == 0 then return nil end
  if may_be_a_form then return 415, "content-type must be application/json" end
  local fine, problem = pcall(check_body, body:getBytes(0, length), spec)
  if not fine then
    if type(problem) ~= "table" then error(problem, 0) end
    return 400, problem.message
  end
  return nil
end

function envoy_on_request(handle)
  local ran, status, message = pcall(check, handle)
  if not ran then
    handle:logErr("request_check: " .. tostring(status))
    status, message = 500, ""
  end
  if status then handle:respond({ [":status"] = tostring(status) }, message) end
end
