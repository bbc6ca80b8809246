-- Forget what was learned of a target's rate, and tell everyone; its limit stays.
--
-- KEYS  1 pace:<target>    hash    what was learned of the target's rate
--       2 paces            zset    target -> when its pace is forgotten
--       3 events           stream  every report and every clear, and what was learned of paces
--       4 order            hash    epoch, notice (ID of the last one)
-- ARGV  1 channel          of the notices
--       2 publish_with     "PUBLISH", or "SPUBLISH" where channels belong to slots
--       3 max_events       integer > 0, approximate length of the stream
--       4 target           encoded
--       5 details          members of a JSON object: backend and model, and who forgets it
-- returns 1 if there was a pace, else 0

local pace_key, paces_key, events_key, order_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local channel, publish_with, max_events, target, details = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local time = redis.call('TIME')
local now_ms = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))

local forgotten = redis.call('DEL', pace_key) + redis.call('ZREM', paces_key, target)
if forgotten == 0 then
  return 0
end
local event_id = redis.call('XADD', events_key, 'MAXLEN', '~', max_events, '*',
  'kind', 'pace', 'wait_ms', '0', 'extended', '0', 'resume_at_ms', '0', 'details', '{' .. details .. '}')
local order = redis.call('HMGET', order_key, 'epoch', 'notice')
if order[1] then
  local notice = '{"version":1,"kind":"pace","epoch":"' .. order[1] .. '","id":"' .. event_id
    .. '","previous_id":"' .. (order[2] or '0-0') .. '","now_ms":' .. now_ms .. ',"pace_until_ms":0,' .. details .. '}'
  if publish_with == 'SPUBLISH' then
    redis.call('SPUBLISH', channel, notice)
  else
    redis.call('PUBLISH', channel, notice)
  end
end
return 1
