-- Posts one body again and again; prints what was measured as one line of JSON.
-- Arguments: the file with the body, then pairs of a header's name and value.
-- PORTS in the environment: each thread takes the next of them, for all of its connections.
local addresses = {}
for port in os.getenv("PORTS"):gmatch("%d+") do
  addresses[#addresses + 1] = wrk.lookup(wrk.host, port)[1]
end

local threads = 0
function setup(thread)
  thread.addr = addresses[threads % #addresses + 1]
  threads = threads + 1
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*all")
  file:close()
  for i = 2, #args, 2 do wrk.headers[args[i]] = args[i + 1] end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\nJSON {"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
