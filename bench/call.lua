-- wrk script: args are FOLDER EXPECTED SKIP. FOLDER has `headers` (name: value, one a
-- line) and `requests` (authorization TAB body, one a line); every answer is checked.
local threads = {}
function setup(thread) table.insert(threads, thread) end

function init(args)
  local headers = {}
  for line in io.lines(args[1] .. "/headers") do
    local name, value = line:match("^(.-): (.*)$")
    headers[name] = value
  end
  expected, skip, bad, sample = args[2], tonumber(args[3] or "0"), 0, ""
  requests, at = {}, 0
  for line in io.lines(args[1] .. "/requests") do
    local authorization, body = line:match("^(.-)\t(.*)$")
    headers["Authorization"] = authorization ~= "" and authorization or nil
    table.insert(requests, wrk.format("POST", wrk.path, headers, body))
  end
  at = skip
end

function request()
  at = at + 1
  return requests[(at - 1) % #requests + 1]
end

function response(status, headers, body)
  if status ~= 200 or not body:find(expected, 1, true) then
    bad = bad + 1
    if bad == 1 then sample = status .. " " .. body:sub(1, 300) end
  end
end

function done(summary, latency)
  local wrong, sample = 0, ""
  for _, thread in ipairs(threads) do
    wrong = wrong + thread:get("bad")
    sample = thread:get("sample")
  end
  local e = summary.errors
  local lost = e.connect + e.read + e.write + e.timeout
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests,
    summary.duration, wrong, lost, latency:percentile(50), latency:percentile(99)))
  io.write("SAMPLE " .. sample:gsub("%c", " ") .. "\n")
end
