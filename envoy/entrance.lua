-- Settles the request id, and turns native gRPC away. Envoy runs it only for requests that bring an id or speak gRPC.

function envoy_on_request(handle)
  local headers = handle:headers()
  -- Envoy has set an id of its own by now; the client's was set aside under this name (see envoy.yaml).
  local asked = headers:get("x-client-request-id")
  if asked then
    headers:remove("x-client-request-id")
    if #asked <= 128 and string.find(asked, "^[%w._-]+$") then headers:replace("x-request-id", asked) end
  end
  if string.find(string.lower(headers:get("content-type") or ""), "^application/grpc") then
    if headers:get(":method") == "HEAD" then
      handle:streamInfo():dynamicMetadata():set("llmrouter.envelope", "bodiless", true)
    end
    handle:respond({ [":status"] = "415" }, "")
  end
end
