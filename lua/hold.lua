-- Hold a target by hand, or end that; tell everyone, in one step and once.
--
-- The limit of a target that is held is the later of its hold and of what reports alone ask for, which is kept beside
-- it: a report shortens no hold, and what it asked for still counts when the hold is released.
--
-- KEYS  1 order               hash    epoch, notice (ID of the last one), run_id of the server that made the epoch,
--                                     format
--       2 active              zset    target -> resume time
--       3 causes              hash    target -> "<event ID>|<wait in ms>|<JSON>" of the event that set the resume time
--       4 events              stream  every report, every clear, every hold and its release
--       5 applied:<client>    string  "<call number>|<reply>" of the client's last call
--       6 clears              zset    when a target was last held or released by hand: "hold:<target>", see report.lua
--       7 paces               zset    target -> when its pace is forgotten
--       8 holds               hash    "<target>" -> its hold, "<target>:reports" -> what reports alone ask for, both
--                                     "<time in ms>|<event ID>|<wait in ms>|<members of a JSON object>"
--       9 limit:<target>      string  resume time, expires with the limit
-- ARGV  1 call_number         integer > 0, grows by one with each new call of this client
--       2 new_epoch           random token, used if a new order of IDs has to begin
--       3 run_id              of the server as the client knows it, or ""
--       4 channel             of the notices
--       5 max_events          integer > 0, approximate length of the stream
--       6 applied_ttl_ms      integer > 0
--       7 publish_with        "PUBLISH", or "SPUBLISH" where channels belong to slots
--       8 target              encoded
--       9 names               members of a JSON object: backend and model
--      10 wait_ms             integer > 0: how long it is held from now on, instead of any hold before; 0 releases it
--      11 age_ms              integer > 0: how long ago the hold was made that is put back, which loses to any that was
--                             made or released since; 0 for one that is made now
--      12 details             members of a JSON object: who holds or releases, and why
-- returns {reply, now_ms}     reply is JSON: {"epoch":…,"event_id":…,"done":0|1,"extended":0|1,
--                             "limit":[resume_at_ms, wait_ms, details] or null}: done is 0 where there was no hold to
--                             release, or a newer one than that which is put back (then event_id is ""), and says
--                             nothing of the limit
--         an error SUPERSEDED when a later call of the same client has already been applied

local FORMAT = 1
local CLEARS_KEPT_MS = 24 * 3600 * 1000
local EXPIRY_SLACK_MS = 60 * 1000
-- No encoded target has a colon.
local REPORTS, MARK = ':reports', 'hold:'

local order_key, active_key, causes_key, events_key, applied_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local clears_key, paces_key, holds_key, limit_key = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local call_number, new_epoch, run_id = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local channel, max_events, applied_ttl_ms, publish_with = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local target, names, wait_ms, age_ms, details = ARGV[8], ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12]

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

local order = redis.call('HMGET', order_key, 'epoch', 'notice', 'run_id', 'format')
-- What a newer version has changed must not be touched; what it has only added does no harm and needs no new number.
if tonumber(order[4] or 0) > FORMAT then
  return redis.error_reply('NEWERFORMAT ' .. order[4])
end

-- Keys of a wrong type, too, must show before the first write.
local cause = redis.call('HGET', causes_key, target)
local in_index = tonumber(redis.call('ZSCORE', active_key, target) or 0)
local pace_until_ms = tonumber(redis.call('ZSCORE', paces_key, target) or 0)
local marked_ms = tonumber(redis.call('ZSCORE', clears_key, MARK .. target) or 0)
local events_type = redis.call('TYPE', events_key).ok
if events_type ~= 'none' and events_type ~= 'stream' then
  return redis.error_reply('WRONGTYPE ' .. events_key)
end

local function read_hold(field)
  local record = redis.call('HGET', holds_key, field) or ''
  -- Garbage is none, so that it gets into no JSON.
  local until_ms, id, its_wait_ms, members = string.match(record, '^(%d+)|([%d-]*)|(%d+)|("%l.+)$')
  if not until_ms then
    return nil
  end
  -- More than its own wait ahead: the server's clock was put back since.
  until_ms = math.min(tonumber(until_ms), now_ms + tonumber(its_wait_ms))
  return until_ms > now_ms and {until_ms = until_ms, id = id, wait_ms = tonumber(its_wait_ms), details = members} or nil
end

local before = read_hold(target)
local reported = before and read_hold(target .. REPORTS)

-- A key of another type holds no limit; it is replaced.
local content = redis.pcall('GET', limit_key)
local existing = math.max(type(content) == 'string' and tonumber(content) or 0, in_index)
local cause_id, cause_wait_ms, cause_details = string.match(cause or '', '^([^|]*)|(%d+)|{(.*)}$')
if cause_id then
  existing = math.min(existing, now_ms + tonumber(cause_wait_ms))
end
-- Later than the hold: a report has set it, perhaps one of a version that knows no holds.
if existing > math.max(now_ms, before and before.until_ms or 0, reported and reported.until_ms or 0) then
  -- Without what it says of a hold that is over: that comes last, and in no string is a quote without a backslash.
  local members = string.match(cause_details or names, '^(.-),"hold":{') or cause_details or names
  reported = {until_ms = existing, id = cause_id or '', wait_ms = existing - now_ms, details = members}
end

local function remember(reply)
  redis.call('SET', applied_key, ARGV[1] .. '|' .. reply, 'PX', applied_ttl_ms)
  return {reply, integer(now_ms)}
end

-- IDs repeat or go back after a flush, a deleted stream or a promoted replica; then a new epoch begins.
local epoch, previous_id, known_run_id = order[1], order[2] or '0-0', order[3] or ''
local moved = run_id ~= '' and known_run_id ~= '' and run_id ~= known_run_id
local stream_lost = previous_id ~= '0-0' and redis.call('EXISTS', events_key) == 0
if not epoch or moved or stream_lost then
  epoch, previous_id = new_epoch, '0-0'
  redis.call('HSET', order_key, 'epoch', epoch, 'notice', previous_id, 'run_id', run_id, 'format', integer(FORMAT))
end

if age_ms > 0 and marked_ms >= now_ms - age_ms then
  return remember('{"epoch":"' .. epoch .. '","event_id":"","done":0,"extended":0,"limit":null}')
end

-- For holds that were made before this and are put back later.
redis.call('ZREMRANGEBYSCORE', clears_key, '-inf', integer(now_ms - CLEARS_KEPT_MS))
redis.call('ZADD', clears_key, integer(now_ms - age_ms), MARK .. target)
redis.call('PEXPIRE', clears_key, integer(CLEARS_KEPT_MS))

local held_until_ms = wait_ms > 0 and now_ms + wait_ms or 0
local reported_until_ms = reported and reported.until_ms or 0
local resume_at_ms = math.max(held_until_ms, reported_until_ms)
local extended = resume_at_ms > math.max(existing, now_ms) and '1' or '0'
local kind = wait_ms > 0 and 'hold' or 'release'
local event_id = redis.call('XADD', events_key, 'MAXLEN', '~', max_events, '*', 'kind', kind,
  'wait_ms', integer(wait_ms), 'extended', extended, 'resume_at_ms', integer(resume_at_ms),
  'details', '{' .. names .. ',"reason":"hold",' .. details .. '}')

local function answer(done, limit)
  return remember('{"epoch":"' .. epoch .. '","event_id":"' .. event_id .. '","done":' .. done .. ',"extended":' .. extended
    .. ',"limit":' .. limit .. '}')
end

if wait_ms == 0 and not before then
  return answer('0', 'null')
end

local function write_hold(field, hold)
  redis.call('HSET', holds_key, field,
    integer(hold.until_ms) .. '|' .. hold.id .. '|' .. integer(hold.wait_ms) .. '|' .. hold.details)
end

redis.call('HDEL', holds_key, target, target .. REPORTS)
if wait_ms > 0 then
  write_hold(target, {until_ms = held_until_ms, id = event_id, wait_ms = wait_ms, details = details})
  if reported then
    write_hold(target .. REPORTS, reported)
  end
  -- What is over is swept here: holds are made by hand, so that there are few.
  local latest_ms, records = 0, redis.call('HGETALL', holds_key)
  for position = 1, #records, 2 do
    local until_ms = tonumber(string.match(records[position + 1], '^%d+') or 0)
    if until_ms > now_ms then
      latest_ms = math.max(latest_ms, until_ms)
    else
      redis.call('HDEL', holds_key, records[position])
    end
  end
  redis.call('PEXPIREAT', holds_key, integer(latest_ms))
end

local head = ',"epoch":"' .. epoch .. '","id":"' .. event_id .. '","previous_id":"' .. previous_id
  .. '","event":"' .. kind .. '","now_ms":' .. integer(now_ms)
if resume_at_ms == 0 then
  redis.call('DEL', limit_key)
  redis.call('ZREM', active_key, target)
  redis.call('HDEL', causes_key, target)
  publish('{"version":1,"kind":"clear"' .. head .. ',"resume_at_ms":0,"wait_ms":0,'
    .. (pace_until_ms > now_ms and '"pace_until_ms":' .. integer(pace_until_ms) .. ',' or '')
    .. names .. ',' .. details .. '}')
  redis.call('HSET', order_key, 'notice', event_id)
  return answer('1', 'null')
end

local by_hand = held_until_ms >= reported_until_ms
local told = by_hand and names .. ',"reason":"hold",' .. details
  or reported.details .. (reported.id ~= '' and ',"restores":"' .. reported.id .. '"' or '')
if wait_ms > 0 then
  told = told .. ',"hold":{"until_ms":' .. integer(held_until_ms) .. ',"wait_ms":' .. integer(wait_ms) .. ','
    .. details .. '}'
end
local resume_at, limit_wait_ms = integer(resume_at_ms), integer(resume_at_ms - now_ms)
redis.call('SET', limit_key, resume_at, 'PXAT', resume_at)
redis.call('ZADD', active_key, resume_at, target)
redis.call('HSET', causes_key, target, event_id .. '|' .. limit_wait_ms .. '|{' .. told .. '}')
publish('{"version":1,"kind":"limit"' .. head .. ',"resume_at_ms":' .. resume_at .. ',"wait_ms":' .. limit_wait_ms
  .. ',' .. told .. '}')

-- As in report.lua.
local last = redis.call('ZREVRANGE', active_key, '0', '0', 'WITHSCORES')
local expires_at = integer(tonumber(last[2]) + EXPIRY_SLACK_MS)
redis.call('PEXPIREAT', active_key, expires_at)
redis.call('PEXPIREAT', causes_key, expires_at)
redis.call('HSET', order_key, 'notice', event_id)
return answer('1', '[' .. resume_at .. ',' .. limit_wait_ms .. ',{' .. told .. '}]')
