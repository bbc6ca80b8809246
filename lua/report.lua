-- Record a batch of reports: extend each target's limit to max(existing, new), append the events and tell everyone.
--
-- All of it happens in one step, and once: a call that is sent again, because its reply was lost, changes nothing and
-- gets the reply of the first time.
--
-- KEYS  1 order               hash    epoch, notice (ID of the last one), run_id of the server that made the epoch,
--                                     format
--       2 active              zset    target -> resume time
--       3 causes              hash    target -> "<event ID>|<wait in ms>|<JSON>" of the event that set the resume time
--       4 events              stream  every report and every clear
--       5 applied:<client>    string  "<call number>|<reply>" of the client's last call
--       6 clears              zset    what was cleared lately -> when: "<target>", "<backend>/*" or "*"
--       7 paces               zset    target -> when its pace is forgotten
--       8 holds               hash    "<target>" -> its hold, "<target>:reports" -> what reports alone ask for, see hold.lua
--       9.. two per distinct target:
--           limit:<target>    string  resume time, expires with the limit
--           pace:<target>     hash    what was learned of the target's rate, see turns.lua
-- ARGV  1 call_number         integer > 0, grows by one with each new call of this client
--       2 new_epoch           random token, used if a new order of IDs has to begin
--       3 run_id              of the server as the client knows it, or ""
--       4 channel             of the notices
--       5 max_events          integer > 0, approximate length of the stream
--       6 applied_ttl_ms      integer > 0
--       7 publish_with        "PUBLISH", or "SPUBLISH" where channels belong to slots
--       8 forget_after_ms     integer > 0: without a refusal for so long, a pace is forgotten
--       9.. seven per report: position of the limit's key in KEYS, encoded target,
--                             wait_ms (integer >= 0, already clamped), age_ms (integer >= 0, since it was made),
--                             details (members of a JSON object),
--                             pace_epoch that the refused call was admitted under ("" where it was not admitted, "-1"
--                             where it says nothing about the pace), call_age_ms ("" where that is not known)
-- returns {reply, now_ms}     reply is JSON: {"epoch":…,"results":
--                             [[event_id, extended 0|1, resume_at_ms, cause_id, resume_at_ms just after it,
--                             cleared 0|1, hold], …]}: resume_at_ms is 0 for a target without a limit; cause_id is ""
--                             if it is not known; cleared is 1 where the report is older than a clear and limits
--                             nothing; hold is left out where the target is not held
--         an error SUPERSEDED when a later call of the same client has already been applied

local FIRST_REPORT = 9
local ARGUMENTS_PER_REPORT = 7
local FORMAT = 1
local EXPIRED_PER_CALL = 100
local EXPIRY_SLACK_MS = 60 * 1000
local TEACHES_NOTHING = '-1'
local REPORTS = ':reports'
local PACE_FORM = '1'
-- As in pacestate.py.
local LAG_MAX_MS = 30000

local order_key, active_key, causes_key, events_key, applied_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local clears_key, paces_key, holds_key = KEYS[6], KEYS[7], KEYS[8]
local call_number, new_epoch, run_id = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local channel, max_events, applied_ttl_ms, publish_with = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local forget_after_ms = tonumber(ARGV[8])

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

-- A limit leaves its key by itself; the index and the causes are swept here, a bounded number at a time.
-- More than this call can add, so that they do not pile up however many are reported at once.
local most_expired = math.max(EXPIRED_PER_CALL, 2 * math.floor((#ARGV - FIRST_REPORT + 1) / ARGUMENTS_PER_REPORT))
local expired = redis.call('ZRANGEBYSCORE', active_key, '-inf', integer(now_ms), 'LIMIT', '0', integer(most_expired))
if #expired > 0 then
  redis.call('ZREM', active_key, unpack(expired))
  redis.call('HDEL', causes_key, unpack(expired))
end

-- IDs repeat or go back after a flush, a deleted stream or a promoted replica; then a new epoch begins.
local epoch, previous_id, known_run_id = order[1], order[2] or '0-0', order[3] or ''
local moved = run_id ~= '' and known_run_id ~= '' and run_id ~= known_run_id
local stream_lost = previous_id ~= '0-0' and redis.call('EXISTS', events_key) == 0
if not epoch or moved or stream_lost then
  epoch, previous_id = new_epoch, '0-0'
  redis.call('HSET', order_key, 'epoch', epoch, 'notice', previous_id, 'run_id', run_id, 'format', integer(FORMAT))
end

local function cleared_since(target, made_at_ms)
  local backend = string.match(target, '^[^/]*')
  for _, scope in ipairs({target, backend .. '/*', '*'}) do
    if tonumber(redis.call('ZSCORE', clears_key, scope) or 0) >= made_at_ms then
      return true
    end
  end
  return false
end

-- Of a wrong type, they must show before the first write.
redis.call('ZSCORE', clears_key, '*')
redis.call('ZSCORE', paces_key, '')
-- Hardly ever is there one.
local any_held = redis.call('EXISTS', holds_key) == 1
if any_held then
  redis.call('HGET', holds_key, '')
end

-- As in hold.lua.
local function read_hold(field)
  local record = any_held and redis.call('HGET', holds_key, field) or ''
  local until_ms, wait_ms, details = string.match(record, '^(%d+)|[%d-]*|(%d+)|("%l.+)$')
  if not until_ms then
    return nil
  end
  until_ms = math.min(tonumber(until_ms), now_ms + tonumber(wait_ms))
  return until_ms > now_ms and {until_ms = until_ms, wait_ms = wait_ms, details = details} or nil
end

local function text(number)
  return string.format('%.17g', number)
end

-- Of what turns.lua keeps of a pace, just what a refusal needs and changes.
local function read_pace(state)
  local told = redis.pcall('HMGET', state.pace_key, 'form', 'epoch', 'forget_ms', 'resume_ms', 'pacing', 'pending',
    'mark_ms', 'win_start_ms', 'cross_ms', 'told_ms', 'lag_ms', 'refused', 'sent', 'used', 'period_ms', 'probing',
    'gate', 'probe_ms', 'next_free_ms')
  if told.err or told[1] ~= PACE_FORM then
    -- There is none; or it is of another type, or in another form, and learned anew. Epochs grow for ever, also across
    -- paces that were forgotten.
    return {is_new = true, epoch = now_ms, forget_ms = forget_after_ms, resume_ms = 0, mark_ms = -1, win_start_ms = 0,
      cross_ms = 0, told_ms = 0, lag_ms = 0, refused = 0, sent = 0, used = 0, period_ms = 0, probe_ms = 0,
      next_free_ms = 0}
  end
  local number = {}
  for position = 2, 19 do
    number[position] = tonumber(told[position] or 0)
  end
  return {epoch = number[2], forget_ms = number[3], resume_ms = number[4], pacing = number[5] == 1,
    pending = number[6] == 1, mark_ms = number[7], win_start_ms = number[8], cross_ms = number[9], told_ms = number[10],
    lag_ms = number[11], refused = number[12], sent = number[13], used = number[14], period_ms = number[15],
    probing = number[16] == 1, gate = number[17] == 1, probe_ms = number[18], next_free_ms = number[19]}
end

local function write_pace(state)
  local s = state.pace
  if s.is_first then
    -- Whatever was there in another form.
    redis.call('DEL', state.pace_key)
  end
  redis.call('HSET', state.pace_key, 'resume_ms', text(s.resume_ms), 'limited_ms', text(s.limited_ms),
    'answer_ms', text(s.answer_ms), 'lag_ms', text(s.lag_ms), 'refused', text(s.refused), 'sent', text(s.sent),
    'used', text(s.used))
  -- Stragglers of a refusal change nothing else.
  if s.cross_ms == now_ms then
    redis.call('HSET', state.pace_key, 'form', PACE_FORM, 'epoch', text(s.epoch), 'forget_ms', text(s.forget_ms),
      'pending', s.pending and '1' or '0', 'mark_ms', text(s.mark_ms), 'win_start_ms', text(s.win_start_ms),
      'cross_ms', text(s.cross_ms), 'told_ms', text(s.told_ms))
  end
  if s.freed then
    redis.call('HSET', state.pace_key, 'gate', '1', 'next_free_ms', text(s.next_free_ms))
  end
  local until_ms = math.max(s.limited_ms, s.resume_ms) + math.max(s.forget_ms, 2 * s.period_ms)
  redis.call('PEXPIREAT', state.pace_key, integer(until_ms))
  return until_ms
end

-- A line by line copy of the function of this name in pacing.py, where it is explained.
local function limited(s, wait_ms, pace_epoch, age_ms)
  s.moved = s.moved or now_ms + wait_ms > s.resume_ms
  s.resume_ms = math.max(s.resume_ms, now_ms + wait_ms)
  s.limited_ms, s.answer_ms = now_ms, now_ms
  if s.mark_ms < 0 then
    s.mark_ms, s.win_start_ms = now_ms, now_ms
  end
  if pace_epoch >= s.epoch or s.pending then
    s.sent, s.used = s.sent - 1, s.used - 1
  end
  if pace_epoch < s.epoch then
    if pace_epoch == s.epoch - 1 and s.pending then
      s.refused = s.refused + 1
    end
    if pace_epoch == s.epoch - 1 and now_ms - s.cross_ms < LAG_MAX_MS then
      s.lag_ms = math.max(s.lag_ms, now_ms - s.cross_ms)
    end
    return
  end
  if s.probing and not s.gate then
    s.freed, s.gate, s.next_free_ms = true, true, math.max(s.resume_ms, math.min(s.probe_ms, s.next_free_ms))
  end
  if not s.pacing then
    s.resume_ms = math.max(s.resume_ms, now_ms + math.min(1.25 * age_ms, LAG_MAX_MS))
  end
  s.epoch, s.pending = s.epoch + 1, true
  s.cross_ms, s.told_ms, s.refused = now_ms, wait_ms, 1
end

local function teach(state, wait_ms, pace_epoch, call_age_ms)
  local pace = state.pace or read_pace(state)
  if pace.is_new then
    if pace_epoch == '' then
      -- Whoever admits no calls keeps to no pace: none is begun for it.
      return
    end
    pace_epoch = pace.epoch
    pace.is_new, pace.is_first = nil, true
  elseif pace_epoch == '' then
    -- Not admitted: sent before the last refusal was known, as far as can be told.
    local sent_ms = now_ms - (tonumber(call_age_ms) or 0)
    pace_epoch = (now_ms < pace.resume_ms or sent_ms < pace.cross_ms) and pace.epoch - 1 or pace.epoch
  else
    -- 0: admitted while no pace was known.
    pace_epoch = tonumber(pace_epoch)
    pace_epoch = pace_epoch == 0 and pace.epoch - 1 or pace_epoch
  end
  limited(pace, wait_ms, pace_epoch, tonumber(call_age_ms) or 0)
  state.pace = pace
end

local states = {}
local results = {}
local last_report = #ARGV - ARGUMENTS_PER_REPORT + 1

for first = FIRST_REPORT, last_report, ARGUMENTS_PER_REPORT do
  local limit_key, target = KEYS[tonumber(ARGV[first])], ARGV[first + 1]
  local wait_ms, age_ms, details = tonumber(ARGV[first + 2]), tonumber(ARGV[first + 3]), ARGV[first + 4]
  -- A clear that somebody made meanwhile wins over what was reported before it.
  local cleared = age_ms > 0 and wait_ms > 0 and cleared_since(target, now_ms - age_ms)
  if cleared then
    -- Said twice in the JSON, where the last one counts.
    wait_ms, details = 0, details .. ',"clamped":"cleared"'
  end

  local state = states[target]
  if not state then
    local in_index = tonumber(redis.call('ZSCORE', active_key, target) or 0)
    -- The two are written together: the key is asked only where the index may have been evicted.
    local in_key = in_index
    if in_index <= now_ms then
      -- A key of another type holds no limit; it is replaced by the next one.
      local content = redis.pcall('GET', limit_key)
      in_key = type(content) == 'string' and tonumber(content) or 0
    end
    local cause = redis.call('HGET', causes_key, target)
    local cause_id, cause_wait_ms = '', nil
    if cause then
      cause_id, cause_wait_ms = string.match(cause, '^([^|]*)|(%d+)|')
    end
    local hold = read_hold(target)
    local existing = math.max(in_key, in_index, hold and hold.until_ms or 0)
    -- More than its own wait ahead: the server's clock was put back since. The limit must not last longer for that.
    local put_back = cause_wait_ms and existing > now_ms + tonumber(cause_wait_ms)
    if put_back then
      existing = now_ms + tonumber(cause_wait_ms)
    end
    if existing <= now_ms then
      existing, cause_id = 0, ''
    end
    state = {limit_key = limit_key, pace_key = KEYS[tonumber(ARGV[first]) + 1], resume_at_ms = existing,
             cause_id = cause_id or '', put_back = put_back,
             stale = existing ~= 0 and (existing ~= in_key or existing ~= in_index)}
    if hold then
      state.hold = '{"until_ms":' .. integer(hold.until_ms) .. ',"wait_ms":' .. hold.wait_ms .. ',' .. hold.details .. '}'
      state.reported = read_hold(target .. REPORTS) or {until_ms = 0}
    end
    states[target] = state
  end

  local resume_at_ms = now_ms + wait_ms
  -- After the clock was put back, others may hold it lifted, by their own clocks: they have to be told even of what is
  -- shorter than what Redis makes of it.
  local extended = wait_ms > 0 and (resume_at_ms > state.resume_at_ms or state.put_back)
  if extended then
    state.resume_at_ms, state.put_back = math.max(state.resume_at_ms, resume_at_ms), nil
  end
  local event_id = redis.call('XADD', events_key, 'MAXLEN', '~', max_events, '*',
    'kind', 'report', 'wait_ms', integer(wait_ms), 'extended', extended and '1' or '0',
    'resume_at_ms', integer(state.resume_at_ms), 'details', '{' .. details .. '}')
  if wait_ms > 0 and ARGV[first + 5] ~= TEACHES_NOTHING then
    teach(state, wait_ms, ARGV[first + 5], ARGV[first + 6])
  end
  if extended then
    state.cause_id, state.report = event_id, first
    state.details = state.hold and details .. ',"hold":' .. state.hold or details
    state.cause_wait_ms = integer(state.resume_at_ms - now_ms)
  end
  if state.hold and wait_ms > 0 and resume_at_ms > state.reported.until_ms then
    state.reported = {until_ms = resume_at_ms, record = integer(resume_at_ms) .. '|' .. event_id .. '|'
      .. integer(wait_ms) .. '|' .. details}
  end
  results[#results + 1] = {event_id, extended and '1' or '0', target, integer(state.resume_at_ms), cleared and '1' or '0'}
end

local latest_ms = 0
for _, state in pairs(states) do
  -- Also where nothing changes: the key may have been evicted, and the index could be next.
  if state.resume_at_ms > now_ms then
    local resume_at = integer(state.resume_at_ms)
    redis.call('SET', state.limit_key, resume_at, 'PXAT', resume_at)
    latest_ms = math.max(latest_ms, state.resume_at_ms)
  end
end

if any_held then
  for target, state in pairs(states) do
    if state.hold and state.reported.record then
      redis.call('HSET', holds_key, target .. REPORTS, state.reported.record)
    end
  end
end

local paces_until_ms = 0
for target, state in pairs(states) do
  if state.pace then
    state.pace_until_ms = write_pace(state)
    -- Stragglers of the same refusal hardly move it, unless they were told to wait for longer.
    if state.pace.cross_ms == now_ms or state.pace.moved then
      redis.call('ZADD', paces_key, integer(state.pace_until_ms), target)
      paces_until_ms = math.max(paces_until_ms, state.pace_until_ms)
    end
  end
end
if paces_until_ms > 0 then
  redis.call('ZREMRANGEBYSCORE', paces_key, '-inf', integer(now_ms))
  local last = redis.call('ZREVRANGE', paces_key, '0', '0', 'WITHSCORES')
  redis.call('PEXPIREAT', paces_key, integer(math.max(paces_until_ms, tonumber(last[2]) or 0)))
end

if latest_ms > 0 then
  -- In the order of the reports, so that the notices' IDs grow along their chain.
  for first = FIRST_REPORT, last_report, ARGUMENTS_PER_REPORT do
    local target = ARGV[first + 1]
    local state = states[target]
    local resume_at = integer(state.resume_at_ms)
    if state.report == first then
      redis.call('ZADD', active_key, resume_at, target)
      redis.call('HSET', causes_key, target,
        state.cause_id .. '|' .. state.cause_wait_ms .. '|{' .. state.details .. '}')
      publish('{"version":1,"kind":"limit","epoch":"' .. epoch .. '","id":"' .. state.cause_id
        .. '","previous_id":"' .. previous_id .. '","now_ms":' .. integer(now_ms) .. ',"resume_at_ms":' .. resume_at
        .. ',"wait_ms":' .. state.cause_wait_ms
        .. (state.pace_until_ms and ',"pace_until_ms":' .. integer(state.pace_until_ms) or '')
        .. ',' .. state.details .. '}')
      previous_id = state.cause_id
    elseif state.stale and not state.report then
      redis.call('ZADD', active_key, resume_at, target)
      state.stale = false
    end
  end
  -- Each time: once they were empty, index and causes are new keys, and those have no expiry.
  local last = redis.call('ZREVRANGE', active_key, '0', '0', 'WITHSCORES')
  local expires_at = integer(tonumber(last[2]) + EXPIRY_SLACK_MS)
  redis.call('PEXPIREAT', active_key, expires_at)
  redis.call('PEXPIREAT', causes_key, expires_at)
  redis.call('HSET', order_key, 'notice', previous_id)
end

local parts = {}
for position, result in ipairs(results) do
  local state = states[result[3]]
  parts[position] = '["' .. result[1] .. '",' .. result[2] .. ',' .. integer(state.resume_at_ms)
    .. ',"' .. state.cause_id .. '",' .. result[4] .. ',' .. result[5] .. (state.hold and ',' .. state.hold or '') .. ']'
end
local reply = '{"epoch":"' .. epoch .. '","results":[' .. table.concat(parts, ',') .. ']}'
redis.call('SET', applied_key, ARGV[1] .. '|' .. reply, 'PX', applied_ttl_ms)
return {reply, integer(now_ms)}
