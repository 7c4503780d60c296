-- The last to shape an answer. Envoy runs it only for those that are not a plain 200: errors, and what the server wants
-- to be a 201; and hardly ever for HEAD, whose answers must stay without a body.

-- Code, reason and message for the errors that come without a reason: gRPC's own (no such RPC, a message too large),
-- whose text may tell of internals, and Envoy's answers to native gRPC, which are gRPC too.
local ERRORS = {
  ["400"] = { 3, "MALFORMED_REQUEST", "the request could not be understood" },
  ["401"] = { 16, "UNAUTHENTICATED", "a valid bearer token is required" },
  ["403"] = { 7, "ROLE_REQUIRED", "the token's roles do not allow this call" },
  ["404"] = { 5, "RESOURCE_NOT_FOUND", "there is no such resource" },
  ["409"] = { 6, "ALREADY_EXISTS", "there is already such a resource" },
  ["415"] = { 3, "UNSUPPORTED_MEDIA_TYPE", "this port speaks JSON; gRPC has a port of its own" },
  ["429"] = { 8, "RATE_LIMITED", "too much was asked for, try again later" },
  ["501"] = { 12, "UNIMPLEMENTED", "no such RPC" },
  ["503"] = { 14, "UNAVAILABLE", "the service is unavailable, try again shortly" },
  ["504"] = { 4, "DEADLINE_EXCEEDED", "the deadline passed before the answer was ready" },
}
local INTERNAL = { 13, "INTERNAL", "internal error; quote the request id when you report it" }
local SHAPE = '{"code":%d,"message":"%s","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo",'
  .. '"reason":"%s","domain":"llmrouter","metadata":{}}]}'

-- The same in the shape that clients of OpenAI read.
local OPENAI_SHAPE = '{"error":{"message":"%s","type":"%s","param":null,"code":"%s"}}'
local OPENAI_TYPES = {
  ["401"] = "authentication_error", ["403"] = "permission_error", ["404"] = "not_found_error",
  ["429"] = "rate_limit_error",
}
local OPENAI_ERRORS = {
  ["404"] = { 5, "UNKNOWN_PATH", "no such path or method" },
  ["408"] = { 4, "DEADLINE_EXCEEDED", "the request took too long to arrive" },
  ["413"] = { 3, "BODY_TOO_LARGE", "the body is too large; the limit is 10 MiB" },
  ["429"] = { 8, "RATE_LIMITED", "too many requests, try again in 1 s" },
  ["502"] = { 14, "ANSWER_NOT_PASSED_ON", "the provider's answer broke off, or is larger than the 10 MiB that are held" },
}

local OWN_ERROR = '"@type":"type.googleapis.com/google.rpc.ErrorInfo"'

local function openai_error(status)
  local known = OPENAI_ERRORS[status] or ERRORS[status] or INTERNAL
  local kind = OPENAI_TYPES[status] or (tonumber(status) < 500 and "invalid_request_error" or "server_error")
  return string.format(OPENAI_SHAPE, known[3], kind, string.lower(known[2]))
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local status = headers:get(":status")
  local is_grpc = string.find(headers:get("content-type") or "", "^application/grpc") ~= nil
  if is_grpc and status == "200" then -- Envoy's own answer to native gRPC: nothing else comes back untranscoded with 200
    status = "415"
    headers:replace(":status", status)
  end
  local created = headers:get("x-http-code")
  if status == "200" and created and string.find(created, "^20[1-6]$") then headers:replace(":status", created) end
  if tonumber(status) < 400 then return end
  local metadata = handle:streamInfo():dynamicMetadata()
  local noted = metadata:get("llmrouter.envelope") or {}
  if noted.bodiless or metadata:get("llmrouter.answer") then return end
  if handle:metadata():get("speaks_openai") then -- the route says so
    local was_tried = metadata:get("llmrouter.attempts") ~= nil
    local own = is_grpc and handle:body(true) or handle:body()
    headers = handle:headers()
    if was_tried then -- a provider's answer, or what happened to all of them, or Envoy's own word
      local said = own and own:length() > 0 and own:getBytes(0, own:length()) or ""
      if not string.find(said, OWN_ERROR, 1, true) then return end
      if status == "500" then -- no filter of ours could hold the provider's answer
        status = "502"
        headers:replace(":status", status)
      end
    end
    if status == "504" then -- the server's decision did not come in time: as if it were away
      status = "503"
      headers:replace(":status", status)
    end
    if own then own:setBytes(openai_error(status)) end
    headers:replace("content-type", "application/json")
    return
  end

  local body = is_grpc and handle:body(true) or handle:body()
  if not body then return end
  local text = body:length() > 0 and body:getBytes(0, body:length()) or ""
  if string.find(text, "google.rpc.ErrorInfo", 1, true) then return end
  local known = ERRORS[status] or INTERNAL
  handle:headers():replace("content-type", "application/json")
  body:setBytes(string.format(SHAPE, known[1], known[3], known[2]))
end
