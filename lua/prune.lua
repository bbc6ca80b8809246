-- Remove events that are older than a given age, except those that explain a limit that is still active.
--
-- KEYS  1 events   stream  every report and every clear
--       2 active   zset    target -> resume time
--       3 causes   hash    target -> "<event ID>|<wait in ms>|<JSON>" of the event that set its resume time
-- ARGV  1 age_ms   integer >= 0
-- returns how many events were removed

local events_key, active_key, causes_key = KEYS[1], KEYS[2], KEYS[3]
local age_ms = tonumber(ARGV[1])

local function integer(number)
  return string.format('%.0f', number)
end

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local keep_from_ms = math.max(0, now_ms - age_ms)

for _, target in ipairs(redis.call('ZRANGEBYSCORE', active_key, '-inf', integer(now_ms))) do
  redis.call('ZREM', active_key, target)
  redis.call('HDEL', causes_key, target)
end
for _, cause in ipairs(redis.call('HVALS', causes_key)) do
  -- Where a limit has outlasted a hold, or a hold a limit, the event that had set it tells more than that which left it.
  for _, where in ipairs({'^(%d+)%-', '"restores":"(%d+)%-'}) do
    local event_ms = string.match(cause, where)
    if event_ms then
      keep_from_ms = math.min(keep_from_ms, tonumber(event_ms))
    end
  end
end
return redis.call('XTRIM', events_key, 'MINID', integer(keep_from_ms))
