-- Put limits back into the index that still have their key: the index was evicted or deleted under them.
--
-- KEYS  1 active            zset     target -> resume time
--       2 causes            hash     target -> the event that set its resume time
--       3.. limit:<target>  string   resume time, expires with the limit
-- ARGV  1.. one per limit:  encoded target
-- returns how many were put back

local FIRST_LIMIT_KEY = 3
local EXPIRY_SLACK_MS = 60 * 1000

local active_key, causes_key = KEYS[1], KEYS[2]

local function integer(number)
  return string.format('%.0f', number)
end

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local restored = 0
for position = FIRST_LIMIT_KEY, #KEYS do
  local limit_key, target = KEYS[position], ARGV[position - FIRST_LIMIT_KEY + 1]
  -- A key of another type holds no limit.
  local content = redis.pcall('GET', limit_key)
  local in_key = type(content) == 'string' and tonumber(content) or 0
  local in_index = tonumber(redis.call('ZSCORE', active_key, target) or 0)
  if in_key > now_ms and in_key > in_index then
    redis.call('ZADD', active_key, integer(in_key), target)
    restored = restored + 1
  end
end

if restored > 0 then
  -- As in report.lua.
  local last = redis.call('ZREVRANGE', active_key, '0', '0', 'WITHSCORES')
  local expires_at = integer(tonumber(last[2]) + EXPIRY_SLACK_MS)
  redis.call('PEXPIREAT', active_key, expires_at)
  redis.call('PEXPIREAT', causes_key, expires_at)
end
return restored
