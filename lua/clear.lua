-- Lift limits now: remove them and forget their paces, append the events and tell everyone, in one step and once.
--
-- A hold stays: it is lifted by hold.lua alone. Of a target that is held, what reports asked for is lifted.
--
-- Every key that is removed has to be named beforehand. If an index holds a target in the scope that was not named,
-- nothing is changed and the missing targets are returned; the caller names them and calls again.
--
-- KEYS  1 order               hash    epoch, notice (ID of the last one), run_id of the server that made the epoch
--       2 active              zset    target -> resume time
--       3 causes              hash    target -> the event that set its resume time
--       4 events              stream  every report and every clear
--       5 applied:<client>    string  "<call number>|<reply>" of the client's last call
--       6 clears              zset    what was cleared lately -> when: "<target>", "<backend>/*" or "*"
--       7 paces               zset    target -> when its pace is forgotten
--       8 holds               hash    "<target>" -> its hold, "<target>:reports" -> what reports alone ask for, see hold.lua
--       9.. two per target named below:
--           limit:<target>    string  resume time, expires with the limit
--           pace:<target>     hash    what was learned of the target's rate
-- ARGV  1 call_number         integer > 0, grows by one with each new call of this client
--       2 new_epoch           random token, used if a new order of IDs has to begin
--       3 run_id              of the server as the client knows it, or ""
--       4 channel             of the notices
--       5 max_events          integer > 0, approximate length of the stream
--       6 applied_ttl_ms      integer > 0
--       7 publish_with        "PUBLISH", or "SPUBLISH" where channels belong to slots
--       8 scope               "all", "backend" or "target"
--       9 scope_target        encoded target of the scope, "" for all
--      10 scope_names         members of a JSON object: backend and model of the scope
--      11 details             members of a JSON object: who clears
--      12.. two per target:   encoded target, names (members of a JSON object: backend and model)
-- returns {reply, now_ms}     reply is JSON: {"epoch":…,"cleared":[[event_id, encoded target, held 0|1], …]}
--         {"", now_ms, target, …}  nothing done, these were not named
--         an error SUPERSEDED when a later call of the same client has already been applied

local FIRST_TARGET = 12
local ARGUMENTS_PER_TARGET = 2
local FIRST_LIMIT_KEY = 9
local KEYS_PER_TARGET = 2
local FORMAT = 1
local CLEARS_KEPT_MS = 24 * 3600 * 1000
local EXPIRY_SLACK_MS = 60 * 1000
local REPORTS = ':reports'

local order_key, active_key, causes_key, events_key, applied_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local clears_key, paces_key, holds_key = KEYS[6], KEYS[7], KEYS[8]
local call_number, new_epoch, run_id = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local channel, max_events, applied_ttl_ms, publish_with = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local scope, scope_target, scope_names, details = ARGV[8], ARGV[9], ARGV[10], ARGV[11]

local function integer(number)
  return string.format('%.0f', number)
end

-- A right that is missing must be found before the first write: Redis does not undo a script that fails half-way.
if redis.acl_check_cmd and not redis.acl_check_cmd(publish_with, channel, '') then
  return redis.error_reply('NOPERM this user may not ' .. publish_with .. ' to ' .. channel)
end

local function publish(message)
  if publish_with == 'SPUBLISH' then
    redis.call('SPUBLISH', channel, message)
  else
    redis.call('PUBLISH', channel, message)
  end
end

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local applied = redis.call('GET', applied_key)
if applied then
  local number, reply = string.match(applied, '^(%d+)|(.*)$')
  number = tonumber(number)
  if number == call_number then
    return {reply, integer(now_ms)}
  elseif number > call_number then
    return redis.error_reply('SUPERSEDED call ' .. ARGV[1] .. ' came after call ' .. integer(number))
  end
end

local function in_scope(target)
  if scope == 'all' then
    return true
  elseif target == scope_target then
    return true
  end
  return scope == 'backend' and string.sub(target, 1, #scope_target + 1) == scope_target .. '/'
end

local named = {}
for first = FIRST_TARGET, #ARGV, ARGUMENTS_PER_TARGET do
  named[ARGV[first]] = true
end
local missing = {'', integer(now_ms)}
local function look_for_missing(targets)
  for _, target in ipairs(targets) do
    if in_scope(target) and not named[target] then
      named[target] = true
      missing[#missing + 1] = target
    end
  end
end
look_for_missing(redis.call('ZRANGEBYSCORE', active_key, '(' .. integer(now_ms), '+inf'))
look_for_missing(redis.call('ZRANGEBYSCORE', paces_key, '(' .. integer(now_ms), '+inf'))
if #missing > 2 then
  return missing
end

local order = redis.call('HMGET', order_key, 'epoch', 'notice', 'run_id', 'format')
-- What a newer version has changed must not be touched; what it has only added does no harm and needs no new number.
if tonumber(order[4] or 0) > FORMAT then
  return redis.error_reply('NEWERFORMAT ' .. order[4])
end

-- IDs repeat or go back after a flush, a deleted stream or a promoted replica; then a new epoch begins.
local epoch, previous_id, known_run_id = order[1], order[2] or '0-0', order[3] or ''
local moved = run_id ~= '' and known_run_id ~= '' and run_id ~= known_run_id
local stream_lost = previous_id ~= '0-0' and redis.call('EXISTS', events_key) == 0
if not epoch or moved or stream_lost then
  epoch, previous_id = new_epoch, '0-0'
  redis.call('HSET', order_key, 'epoch', epoch, 'notice', previous_id, 'run_id', run_id, 'format', integer(FORMAT))
end

-- Redis does not undo a script that fails half-way: keys of a wrong type must show before the first write.
redis.call('HGET', causes_key, '')
redis.call('ZSCORE', clears_key, '*')
redis.call('HGET', holds_key, '')
local events_type = redis.call('TYPE', events_key).ok
if events_type ~= 'none' and events_type ~= 'stream' then
  return redis.error_reply('WRONGTYPE ' .. events_key)
end

local function append(kind, names, resume_at_ms)
  return redis.call('XADD', events_key, 'MAXLEN', '~', max_events, '*',
    'kind', kind, 'wait_ms', '0', 'extended', '0', 'resume_at_ms', integer(resume_at_ms or 0),
    'details', '{' .. names .. ',' .. details .. '}')
end

-- As in hold.lua.
local function read_hold(field)
  local record = redis.call('HGET', holds_key, field) or ''
  local until_ms, id, wait_ms, members = string.match(record, '^(%d+)|([%d-]*)|(%d+)|("%l.+)$')
  if not until_ms then
    return nil
  end
  until_ms = math.min(tonumber(until_ms), now_ms + tonumber(wait_ms))
  return until_ms > now_ms and {until_ms = until_ms, id = id, wait_ms = wait_ms, details = members} or nil
end

-- What is left of the limit is the hold.
local function leave(hold, position, target, names, event_id)
  local until_ms, wait_ms = integer(hold.until_ms), integer(hold.until_ms - now_ms)
  local told = names .. ',"reason":"hold",' .. hold.details .. ',"restores":"' .. hold.id
    .. '","hold":{"until_ms":' .. until_ms .. ',"wait_ms":' .. hold.wait_ms .. ',' .. hold.details .. '}'
  redis.call('SET', KEYS[position], until_ms, 'PXAT', until_ms)
  redis.call('ZADD', active_key, until_ms, target)
  redis.call('HSET', causes_key, target, event_id .. '|' .. wait_ms .. '|{' .. told .. '}')
  -- As in report.lua.
  local last = redis.call('ZREVRANGE', active_key, '0', '0', 'WITHSCORES')
  local expires_at = integer(tonumber(last[2]) + EXPIRY_SLACK_MS)
  redis.call('PEXPIREAT', active_key, expires_at)
  redis.call('PEXPIREAT', causes_key, expires_at)
  publish('{"version":1,"kind":"limit","epoch":"' .. epoch .. '","id":"' .. event_id .. '","previous_id":"' .. previous_id
    .. '","event":"clear","now_ms":' .. integer(now_ms) .. ',"resume_at_ms":' .. until_ms .. ',"wait_ms":' .. wait_ms
    .. ',"pace_until_ms":0,' .. told .. '}')
end

local parts = {}
local limit_key = FIRST_LIMIT_KEY
for first = FIRST_TARGET, #ARGV, ARGUMENTS_PER_TARGET do
  local target, names = ARGV[first], ARGV[first + 1]
  -- A key of another type holds no limit; it is removed all the same.
  local content = redis.pcall('GET', KEYS[limit_key])
  local in_key = type(content) == 'string' and tonumber(content) or 0
  local in_index = tonumber(redis.call('ZSCORE', active_key, target) or 0)
  local hold = read_hold(target)
  local paced = redis.call('ZREM', paces_key, target) == 1
  redis.call('DEL', KEYS[limit_key + 1])
  local lifts = math.max(in_key, in_index) > (hold and hold.until_ms or now_ms)
  if hold then
    local reported = read_hold(target .. REPORTS)
    redis.call('HDEL', holds_key, target .. REPORTS)
    if lifts or reported then
      local event_id = append('clear', names, hold.until_ms)
      parts[#parts + 1] = '["' .. event_id .. '","' .. target .. '",1]'
      if lifts then
        leave(hold, limit_key, target, names, event_id)
        previous_id, paced = event_id, false
      end
    end
  else
    redis.call('DEL', KEYS[limit_key])
    redis.call('ZREM', active_key, target)
    redis.call('HDEL', causes_key, target)
  end
  if lifts and not hold then
    local event_id = append('clear', names)
    publish('{"version":1,"kind":"clear","epoch":"' .. epoch .. '","id":"' .. event_id
      .. '","previous_id":"' .. previous_id .. '","now_ms":' .. integer(now_ms) .. ',"resume_at_ms":0,"wait_ms":0,'
      .. names .. ',' .. details .. '}')
    previous_id = event_id
    parts[#parts + 1] = '["' .. event_id .. '","' .. target .. '",0]'
  elseif paced then
    local event_id = append('pace', names)
    publish('{"version":1,"kind":"pace","epoch":"' .. epoch .. '","id":"' .. event_id
      .. '","previous_id":"' .. previous_id .. '","now_ms":' .. integer(now_ms) .. ',"pace_until_ms":0,'
      .. names .. ',' .. details .. '}')
  end
  limit_key = limit_key + KEYS_PER_TARGET
end

-- For reports that were made before this and are still on their way.
local cleared_scope = scope == 'all' and '*' or scope == 'backend' and scope_target .. '/*' or scope_target
redis.call('ZREMRANGEBYSCORE', clears_key, '-inf', integer(now_ms - CLEARS_KEPT_MS))
redis.call('ZADD', clears_key, integer(now_ms), cleared_scope)
redis.call('PEXPIRE', clears_key, integer(CLEARS_KEPT_MS))

if #parts > 0 then
  redis.call('HSET', order_key, 'notice', previous_id)
else
  append('clear', scope_names)
end

local reply = '{"epoch":"' .. epoch .. '","cleared":[' .. table.concat(parts, ',') .. ']}'
redis.call('SET', applied_key, ARGV[1] .. '|' .. reply, 'PX', applied_ttl_ms)
return {reply, integer(now_ms)}
