-- Read all active limits and all paces, with the place in the order of notices that the limits stand for.
--
-- The resume times come from the index, so that no other key than those below is touched.
--
-- KEYS  1 order       hash    epoch, notice (ID of the last one), run_id of the server that made the epoch
--       2 active      zset    target -> resume time
--       3 causes      hash    target -> "<event ID>|<wait in ms>|<JSON>" of the event that set its resume time
--       4 events      stream  every report and every clear
--       5 paces       zset    target -> when its pace is forgotten
-- ARGV  1 new_epoch   random token, used if a new order of IDs has to begin
--       2 run_id      of the server as the client knows it, or ""
-- returns {epoch, notice_id, now_ms, {target, resume_at_ms, cause, …}, {target, until_ms, …}}: the paces that are
--         remembered for longest, also those that have just been forgotten;
--         cause is "" where it is not known

local CAUSES_PER_READ = 500
local MOST_PACES = 1000
local FORMAT = 1

local order_key, active_key, causes_key, events_key, paces_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local new_epoch, run_id = ARGV[1], ARGV[2]

local function integer(number)
  return string.format('%.0f', number)
end

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local order = redis.call('HMGET', order_key, 'epoch', 'notice', 'run_id', 'format')
-- What a newer version has changed must not be touched; what it has only added does no harm and needs no new number.
if tonumber(order[4] or 0) > FORMAT then
  return redis.error_reply('NEWERFORMAT ' .. order[4])
end

-- IDs repeat or go back after a flush, a deleted stream or a promoted replica; then a new epoch begins.
local epoch, notice_id, known_run_id = order[1], order[2] or '0-0', order[3] or ''
local moved = run_id ~= '' and known_run_id ~= '' and run_id ~= known_run_id
local stream_lost = notice_id ~= '0-0' and redis.call('EXISTS', events_key) == 0
if not epoch or moved or stream_lost then
  epoch, notice_id = new_epoch, '0-0'
  redis.call('HSET', order_key, 'epoch', epoch, 'notice', notice_id, 'run_id', run_id, 'format', integer(FORMAT))
end

local limits = {}
local active = redis.call('ZRANGEBYSCORE', active_key, '(' .. integer(now_ms), '+inf', 'WITHSCORES')
for first = 1, #active, 2 * CAUSES_PER_READ do
  local targets = {}
  for position = first, math.min(first + 2 * CAUSES_PER_READ - 1, #active), 2 do
    targets[#targets + 1] = active[position]
  end
  local causes = redis.call('HMGET', causes_key, unpack(targets))
  for position, target in ipairs(targets) do
    limits[#limits + 1] = target
    limits[#limits + 1] = active[first + 2 * position - 1]
    limits[#limits + 1] = causes[position] or ''
  end
end
-- Only the latest: whoever keeps more is not helped by a snapshot that takes seconds.
local paces = redis.call('ZREVRANGE', paces_key, '0', integer(MOST_PACES - 1), 'WITHSCORES')
return {epoch, notice_id, integer(now_ms), limits, paces}
