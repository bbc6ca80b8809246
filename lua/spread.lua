-- Slow a target's calls down until its limit is whole again, because an upstream said how much is left of it.
--
-- Every function is a line by line copy of the one of the same name in spreading.py, where it is explained. turns.lua
-- hands out the turns.
--
-- KEYS  1 pace:<target>    hash    what was learned of the target's rate, see turns.lua; beside it spread_rate,
--                                  spread_ms, next_rate, free_ms
--       2 paces            zset    target -> when its pace is forgotten
--       3 order            hash    epoch, notice (ID of the last one), format
-- ARGV  1 spread_rate      > 0: calls per second until then
--       2 for_ms           integer > 0: until then
--       3 next_rate        > 0: calls per second from then on
--       4 channel          of the notices
--       5 publish_with     "PUBLISH", or "SPUBLISH" where channels belong to slots
--       6 target           encoded
--       7 details          members of a JSON object: backend and model, and who tells it
-- returns how long a pace has to be kept, in milliseconds

local FORMAT = 1
local PACE_FORM = '1'
-- As in spreading.py.
local SPREAD_GRACE_MS = 10000

local pace_key, paces_key, order_key = KEYS[1], KEYS[2], KEYS[3]
local spread_rate, for_ms, next_rate = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local channel, publish_with, target, details = ARGV[4], ARGV[5], ARGV[6], ARGV[7]

local max, min = math.max, math.min

local function integer(number)
  return string.format('%.0f', number)
end

local function text(number)
  return string.format('%.17g', number)
end

-- A right that is missing must be found before the first write: Redis does not undo a script that fails half-way.
if redis.acl_check_cmd and not redis.acl_check_cmd(publish_with, channel, '') then
  return redis.error_reply('NOPERM this user may not ' .. publish_with .. ' to ' .. channel)
end

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local order = redis.call('HMGET', order_key, 'epoch', 'notice', 'format')
-- What a newer version has changed must not be touched; what it has only added does no harm and needs no new number.
if tonumber(order[3] or 0) > FORMAT then
  return redis.error_reply('NEWERFORMAT ' .. order[3])
end
redis.call('ZSCORE', paces_key, '')

local function spread(known_free_ms, now_ms, spread_rate, for_ms)
  local free_ms = min(now_ms + 1000 / spread_rate, now_ms + for_ms)
  return known_free_ms and min(max(now_ms, known_free_ms), free_ms) or free_ms
end

local told = redis.pcall('HMGET', pace_key, 'form', 'spread_ms', 'free_ms')
if told.err then
  -- Somebody else's garbage.
  redis.call('DEL', pace_key)
  told = {}
end
local is_on = now_ms < (tonumber(told[2] or 0) or 0) + SPREAD_GRACE_MS
local free_ms = spread(is_on and tonumber(told[3]) or nil, now_ms, spread_rate, for_ms)
local spread_ms = now_ms + for_ms
redis.call('HSET', pace_key, 'spread_rate', text(spread_rate), 'spread_ms', integer(spread_ms),
  'next_rate', text(next_rate), 'free_ms', text(free_ms))
local until_ms = spread_ms + SPREAD_GRACE_MS
if told[1] == PACE_FORM then
  -- What was learned of a pace is remembered as long as ever, and this no longer than that.
  until_ms = tonumber(redis.call('ZSCORE', paces_key, target) or until_ms)
else
  redis.call('PEXPIREAT', pace_key, integer(until_ms))
  redis.call('ZADD', paces_key, integer(until_ms), target)
  local last = redis.call('ZREVRANGE', paces_key, '0', '0', 'WITHSCORES')
  redis.call('PEXPIREAT', paces_key, integer(tonumber(last[2])))
end

if order[1] then
  -- Whoever waits for a turn asks again.
  local message = '{"version":1,"kind":"pace","epoch":"' .. order[1] .. '","id":"' .. (order[2] or '0-0')
    .. '","previous_id":"' .. (order[2] or '0-0') .. '","now_ms":' .. integer(now_ms) .. ',"pace_until_ms":'
    .. integer(until_ms) .. ',"pace_rate":' .. text(spread_rate) .. ',' .. details .. '}'
  if publish_with == 'SPUBLISH' then
    redis.call('SPUBLISH', channel, message)
  else
    redis.call('PUBLISH', channel, message)
  end
end
return integer(until_ms - now_ms)
