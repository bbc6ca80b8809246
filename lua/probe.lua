-- A probe: one real call that finds out for the whole fleet whether a target is open. This gives it out before the
-- limit's time has come, prepares the one that turns.lua gives out afterwards, and takes in what became of either.
--
-- Every function is a line by line copy of the one of the same name in probing.py, where it is explained.
--
-- KEYS  1 pace:<target>    hash    what was learned of the target's rate, see turns.lua
--       2 limit:<target>   string  resume time, expires with the limit
--       3 active           zset    target -> resume time
--       4 causes           hash    target -> "<event ID>|<wait in ms>|<JSON>" of the event that set the resume time
--       5 events           stream  every report and every clear, and what was learned of paces
--       6 order            hash    epoch, notice (ID of the last one), run_id, format
--       7 clears           zset    what was cleared lately -> when
--       8 paces            zset    target -> when its pace is forgotten
--       9 holds            hash    target -> its hold, which is neither tried nor lifted, see hold.lua
-- ARGV  1 what             "begins": a pace is told by a user; "opens": a limit has lifted that calls waited for;
--                          "verifies": a call asks to try one; "held", "served", "refused", "back": what became of a
--                          probe
--       2 pace_epoch       of the probe, "0" in the first three
--       3 probe_ms         likewise
--       4 resume_at_ms     of the limit that was waited for or is tried, as the client knows it; "0" for none
--       5 since_ms         when it was set
--       6 verify_ms        > 0: how long after that, or after it was tried, it may be tried
--       7 retry_ms         how long after a probe came "back" the next one may go
--       8 forget_after_ms  > 0: without a refusal for so long, a pace is forgotten
--       9 channel          of the notices
--      10 publish_with     "PUBLISH", or "SPUBLISH" where channels belong to slots
--      11 max_events       > 0, approximate length of the stream
--      12 new_epoch        random token, used if a new order of IDs has to begin
--      13 run_id           of the server as the client knows it, or ""
--      14 target           encoded
--      15 details          members of a JSON object: backend and model, and who calls
--      16 initial_rate     > 0: the pace that is told, in calls per second; "0" where none is
-- returns {given 0|1, wait_ms, pace_epoch, probe_ms, order_epoch, event_id}: given is 0 where there is no probe now,
--         and it is worth asking again in wait_ms, or where what is told is of one that has ended, and nothing was
--         changed; with an event_id that is not "", the limit was lifted by it

local FORMAT = 1
local PACE_FORM = '1'
local CLEARS_KEPT_MS = 24 * 3600 * 1000
-- As in pacestate.py.
local BEYOND_TAU_MS = 6000
local OPENING_RATE = 10
local PLATEAU_CALLS = 400
local PLATEAU_MIN_MS = 4000
local PROBE_LEASE_MS = 4000
local PROBE_PATIENCE_MS = 5000

local pace_key, limit_key, active_key, causes_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local events_key, order_key, clears_key, paces_key, holds_key = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local what, told_epoch, told_probe_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local resume_at_ms, since_ms = tonumber(ARGV[4]), tonumber(ARGV[5])
local verify_ms, retry_ms, forget_after_ms = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local channel, publish_with, max_events = ARGV[9], ARGV[10], ARGV[11]
local new_epoch, run_id, target, details, initial_rate = ARGV[12], ARGV[13], ARGV[14], ARGV[15], tonumber(ARGV[16])

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

local function publish(message)
  if publish_with == 'SPUBLISH' then
    redis.call('SPUBLISH', channel, message)
  else
    redis.call('PUBLISH', channel, message)
  end
end

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local order = redis.call('HMGET', order_key, 'epoch', 'notice', 'run_id', 'format')
-- What a newer version has changed must not be touched; what it has only added does no harm and needs no new number.
if tonumber(order[4] or 0) > FORMAT then
  return redis.error_reply('NEWERFORMAT ' .. order[4])
end
-- Keys of a wrong type, too, must show before the first write.
redis.call('ZSCORE', active_key, '')
redis.call('HGET', causes_key, '')
redis.call('ZSCORE', clears_key, '*')
redis.call('ZSCORE', paces_key, '')
redis.call('HGET', holds_key, '')
local events_type = redis.call('TYPE', events_key).ok
if events_type ~= 'none' and events_type ~= 'stream' then
  return redis.error_reply('WRONGTYPE ' .. events_key)
end

local NUMBERS = {'epoch', 'forget_ms', 'resume_ms', 'limited_ms', 'period_ms', 'probe_ms', 'tried_ms', 'next_free_ms',
  'last_ms', 'start_ms', 'base'}
local FLAGS = {'pacing', 'pending', 'gate', 'probing'}

local function read_pace()
  local told = redis.pcall('HMGET', pace_key, 'form', unpack(NUMBERS))
  if told.err or told[1] ~= PACE_FORM then
    return nil
  end
  local pace = {}
  for position, name in ipairs(NUMBERS) do
    pace[name] = tonumber(told[position + 1] or 0)
  end
  local flags = redis.call('HMGET', pace_key, unpack(FLAGS))
  for position, name in ipairs(FLAGS) do
    pace[name] = flags[position] == '1'
  end
  return pace
end

local function forgotten_at(s)
  return max(s.limited_ms, s.resume_ms) + max(s.forget_ms, 2 * s.period_ms)
end

local function write_pace(s)
  if s.is_new then
    -- Whatever was there, in this form or in another.
    redis.call('DEL', pace_key)
    redis.call('HSET', pace_key, 'form', PACE_FORM, 'forget_ms', text(s.forget_ms), 'limited_ms', text(s.limited_ms),
      'answer_ms', text(s.limited_ms), 'pacing', '1', 'paced', '1', 'searching', s.ceiling and '0' or '1',
      'base', text(s.base), 'burst', '1', 'mark_ms', text(s.mark_ms), 'win_start_ms', text(s.mark_ms), 'cross_ms', text(s.mark_ms))
  end
  if s.is_new and s.ceiling then
    redis.call('HSET', pace_key, 'ceiling', text(s.ceiling), 'tau_ms', text(BEYOND_TAU_MS),
      'plateau_ms', text(s.plateau_ms))
  end
  redis.call('HSET', pace_key, 'epoch', text(s.epoch), 'resume_ms', text(s.resume_ms), 'gate', s.gate and '1' or '0',
    'probing', s.probing and '1' or '0', 'probe_ms', text(s.probe_ms), 'tried_ms', text(s.tried_ms),
    'next_free_ms', text(s.next_free_ms), 'last_ms', text(s.last_ms), 'start_ms', text(s.start_ms))
  local until_ms = integer(forgotten_at(s))
  redis.call('PEXPIREAT', pace_key, until_ms)
  redis.call('ZADD', paces_key, until_ms, target)
  local last = redis.call('ZREVRANGE', paces_key, '0', '0', 'WITHSCORES')
  redis.call('PEXPIREAT', paces_key, integer(tonumber(last[2])))
end

-- part: probing

local function opening(now_ms, resume_ms, forget_ms, epoch, probed)
  return {is_new = true, epoch = epoch, forget_ms = forget_ms, gate = not probed, probing = not probed,
    pacing = true, resume_ms = resume_ms, next_free_ms = resume_ms, last_ms = resume_ms, start_ms = resume_ms,
    mark_ms = resume_ms, limited_ms = now_ms, period_ms = 0, probe_ms = 0, tried_ms = 0, base = OPENING_RATE}
end

local function begun(now_ms, initial_rate, forget_ms, epoch)
  local s = opening(now_ms, now_ms, forget_ms, epoch, true)
  s.base, s.ceiling = initial_rate, initial_rate
  s.plateau_ms = max(PLATEAU_MIN_MS, 1000 * PLATEAU_CALLS / initial_rate)
  return s
end

local function reopened(s, resume_ms)
  if resume_ms > s.resume_ms then
    s.resume_ms = resume_ms
    if s.pacing and not s.pending then
      s.epoch = s.epoch + 1
      s.gate, s.probing = true, true
      s.next_free_ms = max(s.next_free_ms, resume_ms)
      s.last_ms = s.next_free_ms
    end
  end
end

local function verify(s, now_ms, verify_ms, since_ms)
  local due_ms = max(since_ms, s.tried_ms) + verify_ms
  if is_out(s) then
    due_ms = max(due_ms, s.next_free_ms)
  end
  if now_ms < due_ms then
    return due_ms - now_ms
  end
  if not s.pending then
    s.epoch = s.epoch + 1
  end
  s.probing, s.gate = true, false
  s.probe_ms = max(now_ms, s.probe_ms + 1)
  s.next_free_ms = now_ms + PROBE_LEASE_MS
  return 0
end

local function held(s, now_ms)
  s.next_free_ms = now_ms + PROBE_LEASE_MS
  if now_ms >= s.resume_ms then
    s.next_free_ms = min(s.next_free_ms, max(s.probe_ms, s.resume_ms) + PROBE_PATIENCE_MS)
  end
end

local function refused(s, now_ms)
  s.tried_ms = now_ms
  free(s)
end

local function given_back(s, tried_ms)
  s.tried_ms = max(s.tried_ms, tried_ms)
  free(s)
end

local function append(kind, more)
  return redis.call('XADD', events_key, 'MAXLEN', '~', max_events, '*', 'kind', kind, 'wait_ms', '0', 'extended', '0',
    'resume_at_ms', '0', 'details', '{' .. details .. more .. '}')
end

local epoch, previous_id = order[1], order[2] or '0-0'
local function notice(kind, id, more)
  publish('{"version":1,"kind":"' .. kind .. '","epoch":"' .. epoch .. '","id":"' .. id .. '","previous_id":"'
    .. previous_id .. '","now_ms":' .. integer(now_ms) .. ',' .. details .. more .. '}')
end

local function tell_pace(s, more)
  if s.is_new then
    more = ',"pace_rate":' .. text(s.base) .. more
  end
  local event_id = append('pace', more)
  if epoch then
    notice('pace', event_id, ',"pace_until_ms":' .. integer(forgotten_at(s)) .. more)
  end
end

-- As in clear.lua, but that the pace goes on, and that whoever waits for it is told why.
local function lift(s)
  local known_run_id = order[3] or ''
  local moved = run_id ~= '' and known_run_id ~= '' and run_id ~= known_run_id
  local stream_lost = previous_id ~= '0-0' and redis.call('EXISTS', events_key) == 0
  if not epoch or moved or stream_lost then
    epoch, previous_id = new_epoch, '0-0'
    redis.call('HSET', order_key, 'epoch', epoch, 'notice', previous_id, 'run_id', run_id, 'format', integer(FORMAT))
  end
  redis.call('DEL', limit_key)
  redis.call('ZREM', active_key, target)
  redis.call('HDEL', causes_key, target)
  redis.call('ZREMRANGEBYSCORE', clears_key, '-inf', integer(now_ms - CLEARS_KEPT_MS))
  redis.call('ZADD', clears_key, integer(now_ms), target)
  redis.call('PEXPIRE', clears_key, integer(CLEARS_KEPT_MS))
  local event_id = append('clear', ',"probe":"served"')
  notice('clear', event_id, ',"probe":"served","resume_at_ms":0,"wait_ms":0,"pace_until_ms":'
    .. integer(forgotten_at(s)) .. ',"pace_rate":' .. text(s.base))
  redis.call('HSET', order_key, 'notice', event_id)
  return event_id
end

local pace = read_pace()

local function reply(given, wait_ms, event_id)
  local s = given == 1 and pace or {epoch = 0, probe_ms = 0}
  return {integer(given), integer(math.ceil(wait_ms)), integer(s.epoch), integer(s.probe_ms), epoch or '', event_id or ''}
end

if what == 'begins' then
  if not pace then
    pace = begun(now_ms, initial_rate, forget_after_ms, now_ms)
    write_pace(pace)
    tell_pace(pace, '')
  end
  return reply(1, 0)
end

if what == 'opens' then
  if pace then
    reopened(pace, resume_at_ms)
    write_pace(pace)
  else
    pace = opening(now_ms, resume_at_ms, forget_after_ms, now_ms, false)
    write_pace(pace)
    tell_pace(pace, '')
  end
  return reply(1, 0)
end

local content = redis.pcall('GET', limit_key)
local limited_until_ms = type(content) == 'string' and tonumber(content) or 0
local held_until_ms = tonumber(string.match(redis.call('HGET', holds_key, target) or '', '^%d+') or 0)

if what == 'verifies' then
  if limited_until_ms ~= resume_at_ms or limited_until_ms <= now_ms or held_until_ms > now_ms then
    -- Set anew, lifted, or held by hand: the client hears of it.
    return reply(0, 1000)
  end
  if pace then
    reopened(pace, resume_at_ms)
  else
    pace = opening(now_ms, resume_at_ms, forget_after_ms, now_ms, false)
  end
  local wait_ms = verify(pace, now_ms, verify_ms, since_ms)
  if wait_ms > 0 then
    return reply(0, wait_ms)
  end
  write_pace(pace)
  return reply(1, 0)
end

if not pace or not is_out(pace) or pace.epoch ~= told_epoch or pace.probe_ms ~= told_probe_ms then
  return reply(0, 0)
end

local event_id
if what == 'held' then
  held(pace, now_ms)
  write_pace(pace)
elseif what == 'refused' or what == 'back' then
  if what == 'refused' then
    refused(pace, now_ms)
  else
    given_back(pace, retry_ms > 0 and now_ms - verify_ms + retry_ms or 0)
  end
  write_pace(pace)
  if epoch then
    notice('pace', previous_id, ',"probe":"' .. what .. '","pace_until_ms":' .. integer(forgotten_at(pace)))
  end
elseif limited_until_ms > now_ms and (limited_until_ms ~= resume_at_ms or held_until_ms > now_ms) then
  -- Somebody was refused since it went, or holds the target: newer knowledge than what it found.
  free(pace)
  write_pace(pace)
elseif limited_until_ms > now_ms then
  pace = opening(now_ms, now_ms, pace.forget_ms, max(now_ms, pace.epoch + 1), true)
  write_pace(pace)
  event_id = lift(pace)
else
  if pace.pending then
    pace = opening(now_ms, now_ms, pace.forget_ms, max(now_ms, pace.epoch + 1), true)
  else
    open(pace, now_ms)
  end
  write_pace(pace)
  tell_pace(pace, ',"probe":"served"')
end
return reply(1, 0, event_id)
