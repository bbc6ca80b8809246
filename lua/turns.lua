-- Take turns of a target's pace, and tell what was served; the first request after a refusal draws its lesson.
--
-- What is remembered of a pace is a hash of numbers; what changes it is in the parts, which are put in where they are
-- named. Turns are granted in the order in which processes ask: each is told when to ask again, one turn after the last of
-- those who wait already.
--
-- Beside it, what an upstream said is left may be spread over the time until its limit is whole again (spreading.py): where
-- both are kept, the slower one counts.
--
-- KEYS  1 pace:<target>    hash    what was learned of the target's rate: form, PACE_FIELDS; what is left: SPREAD_FIELDS
--       2 turns:<target>   zset    coordinator -> when it is expected to ask again
--       3 paces            zset    target -> when its pace is forgotten
--       4 events           stream  every report and every clear, and what was learned of paces
--       5 order            hash    epoch, notice (ID of the last one)
-- ARGV  1 client           of the coordinator
--       2 wanted           integer >= 0: calls that wait for a turn; -1 only looks, and changes nothing
--       3 unused           integer >= 0: turns granted before that nobody took
--       4 unused_epoch     integer: what those were granted under
--       5 served           integer >= 0: calls served that were not told of yet
--       6 served_ms        integer >= 0: how long ago the first of them was made
--       7 horizon_ms       integer > 0: no turn that is due later than this is granted
--       8 channel          of the notices
--       9 publish_with     "PUBLISH", or "SPUBLISH" where channels belong to slots
--      10 max_events       integer > 0, approximate length of the stream
--      11 target           encoded
--      12 names            members of a JSON object: backend and model
-- returns {epoch, granted, first_ms, spacing_ms, rate, ceiling, forgets_ms, processes, probe_ms, fleet_rate}; with none
--         granted, it is worth asking again in first_ms; probe_ms is 0 but for a turn that is a probe (see probe.lua);
--         fleet_rate: turns per second that all were granted lately; epoch and ceiling are 0 where nothing was learned.
--         false where there is no pace: everybody may go

local PACE_FORM = '1'
local PACE_FIELDS = {
  'epoch', 'forget_ms', 'resume_ms', 'limited_ms', 'pacing', 'pending', 'gate', 'probing', 'probe_ms', 'tried_ms',
  'paced', 'searching', 'base', 'ceiling', 'tau_ms', 'plateau_ms', 'grown_ms', 'next_free_ms', 'last_ms', 'mark_ms',
  'start_ms', 'sent', 'served', 'answer_ms', 'cross_ms', 'cross_rate', 'told_ms', 'refused', 'lag_ms', 'misses',
  'last_sent', 'closed_after', 'begun_ms', 'lower', 'unwasted', 'burst', 'burst_ms', 'budget', 'used', 'win_start_ms',
  'period_ms', 'confirmed', 'over', 'skipped', 'prev_told_ms', 'prev_into_ms', 'guess_ms',
}
local IS_FLAG = {
  pacing = true, pending = true, gate = true, probing = true, paced = true, searching = true, confirmed = true,
  over = true,
}

-- part: pacestate
-- part: lessons
-- part: probing
-- part: pacing
-- part: spreading

local DEFAULT = {tau_ms = SEARCH_TAU_MS, plateau_ms = PLATEAU_MIN_MS}
local LATE_MS = 500
local RECENT_MS = 10 * 1000
local SEARCH_STEP = 0.5
local TURNS_TTL_MS = 10 * 60 * 1000

local pace_key, turns_key, paces_key, events_key, order_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local client, wanted = ARGV[1], tonumber(ARGV[2])
local unused, unused_epoch = tonumber(ARGV[3]), tonumber(ARGV[4])
local served, served_ms, horizon_ms = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local channel, publish_with, max_events, target, names = ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12]

local function integer(number)
  return string.format('%.0f', number)
end

local function read_hash()
  local told = redis.pcall('HGETALL', pace_key)
  local hash = {}
  for position = 1, #told, 2 do
    hash[told[position]] = told[position + 1]
  end
  return hash
end

local function read_pace(hash)
  if hash.form ~= PACE_FORM then
    -- Of another type, or in another form: it is learned anew, from the next refusal on.
    return nil
  end
  local pace = hash
  for _, name in ipairs(PACE_FIELDS) do
    pace[name] = tonumber(pace[name] or DEFAULT[name] or 0)
    if IS_FLAG[name] then
      pace[name] = pace[name] == 1
    end
  end
  return pace
end

local function read_spread(hash, now_ms)
  local spread = {}
  for _, name in ipairs(SPREAD_FIELDS) do
    spread[name] = tonumber(hash[name] or 0) or 0
  end
  if spread.spread_rate > 0 and spread.next_rate > 0 and now_ms < spread.spread_ms + SPREAD_GRACE_MS then
    return spread
  end
  return nil
end

local function fields_of(pace)
  local fields = {'form', PACE_FORM}
  for _, name in ipairs(PACE_FIELDS) do
    local value = pace[name]
    fields[#fields + 1] = name
    fields[#fields + 1] = IS_FLAG[name] and (value and '1' or '0') or string.format('%.17g', value)
  end
  return fields
end

local function forgotten_at(pace)
  return math.max(pace.limited_ms, pace.resume_ms) + math.max(pace.forget_ms, 2 * pace.period_ms)
end

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local hash = read_hash()
local spread, pace = read_spread(hash, now_ms), read_pace(hash)
if not pace and not spread then
  return false
end
local looks = wanted < 0
local turns_type = redis.call('TYPE', turns_key).ok
if turns_type ~= 'none' and turns_type ~= 'zset' then
  -- Somebody else's garbage, which would fail every request.
  redis.call('DEL', turns_key)
end

if pace and served > 0 then
  tell(pace, now_ms, served, served_ms)
end
if pace and unused > 0 then
  give_back(pace, unused, unused_epoch)
end
if spread and unused > 0 then
  spread_taken(spread, now_ms, -unused)
end
local was_pending = pace and pace.pending
-- Who was told to ask later than now waits.
local last = redis.call('ZREVRANGE', turns_key, '0', '1', 'WITHSCORES')
local other_asks_at = tonumber(last[last[1] == client and 4 or 2] or 0)
if pace and not looks and other_asks_at > now_ms then
  awaited(pace, now_ms)
end

-- Without any turn first, so that the pace is known by which turns are shared.
local first_ms, spacing_ms, granted = 0, 0, 0
if pace then
  first_ms, spacing_ms, granted = take(pace, now_ms, 0, horizon_ms)
end
local spread_first_ms, spread_spacing_ms, due = 0, 0, wanted
if spread then
  spread_first_ms, spread_spacing_ms, due = spread_turns(spread, now_ms, wanted, horizon_ms)
end
if not looks then
  redis.call('ZREM', turns_key, client)
  redis.call('ZREMRANGEBYSCORE', turns_key, '-inf', integer(now_ms - LATE_MS))
end
local others = redis.call('ZCARD', turns_key)
if wanted > 0 and (spacing_ms > 0 or not pace) then
  local share = math.max(1, math.ceil(horizon_ms / math.max(spacing_ms, spread_spacing_ms) / (others + 1)))
  granted = math.min(wanted, share, due)
  if pace and due > 0 then
    first_ms, spacing_ms, granted = take(pace, now_ms, granted, horizon_ms)
  end
  if spread then
    spread_taken(spread, now_ms, granted)
  end
end
first_ms, spacing_ms = math.max(first_ms, spread_first_ms), math.max(spacing_ms, spread_spacing_ms)

if wanted > 0 then
  local asks_at = now_ms + first_ms + math.max(0, granted - 1) * spacing_ms
  if granted == 0 then
    -- While it is searched for, the pace will be faster when the others have had their turns.
    local step_ms = spacing_ms * (pace and pace.searching and SEARCH_STEP or 1)
    asks_at = math.max(now_ms + math.max(1, first_ms - horizon_ms / 2), other_asks_at + step_ms)
    if spread and now_ms < spread.spread_ms then
      -- Then it may be otherwise.
      asks_at = math.min(asks_at, spread.spread_ms)
    end
    first_ms = asks_at - now_ms
    if pace and is_out(pace) then
      -- What becomes of the probe is told to all at once, and then nobody stands behind those who were told a later time.
      asks_at = now_ms
    end
  end
  redis.call('ZADD', turns_key, integer(asks_at), client)
  redis.call('PEXPIRE', turns_key, integer(TURNS_TTL_MS))
end

-- Beside the algorithm: turns of this period and of the one before.
local counted = {period = math.floor(now_ms / RECENT_MS), turns = 0, before = 0}
if tonumber(hash.counted_in or 0) == counted.period then
  counted.turns, counted.before = tonumber(hash.counted), tonumber(hash.counted_before)
elseif tonumber(hash.counted_in or 0) == counted.period - 1 then
  counted.before = tonumber(hash.counted)
end
counted.turns = math.max(0, counted.turns + granted - unused)
local part = now_ms / RECENT_MS - counted.period
local fleet_rate = (counted.before * (1 - part) + counted.turns) * 1000 / RECENT_MS

local until_ms = pace and forgotten_at(pace) or spread.spread_ms + SPREAD_GRACE_MS
if not looks then
  redis.call('HSET', pace_key, 'counted_in', integer(counted.period), 'counted', integer(counted.turns),
    'counted_before', integer(counted.before))
  if spread then
    redis.call('HSET', pace_key, 'free_ms', string.format('%.17g', spread.free_ms))
  end
  if pace then
    redis.call('HSET', pace_key, unpack(fields_of(pace)))
    redis.call('PEXPIREAT', pace_key, integer(until_ms))
    redis.call('ZADD', paces_key, integer(until_ms), target)
    -- A window that was found is remembered for longer than the refusal had said.
    local last = redis.call('ZREVRANGE', paces_key, '0', '0', 'WITHSCORES')
    redis.call('PEXPIREAT', paces_key, integer(tonumber(last[2])))
  end
end
local slower = pace and rate(pace) or math.huge
if spread then
  slower = math.min(slower, spread_rate(spread, now_ms))
end
local rate_now, ceiling = string.format('%.17g', slower), string.format('%.17g', pace and pace.ceiling or 0)

if was_pending and not pace.pending and not looks then
  local learned = names .. ',"pace_rate":' .. rate_now .. ',"pace_ceiling":' .. ceiling
  local event_id = redis.call('XADD', events_key, 'MAXLEN', '~', max_events, '*',
    'kind', 'pace', 'wait_ms', '0', 'extended', '0', 'resume_at_ms', '0', 'details', '{' .. learned .. '}')
  local order = redis.call('HMGET', order_key, 'epoch', 'notice')
  if order[1] then
    local notice = '{"version":1,"kind":"pace","epoch":"' .. order[1] .. '","id":"' .. event_id
      .. '","previous_id":"' .. (order[2] or '0-0') .. '","now_ms":' .. integer(now_ms)
      .. ',"pace_until_ms":' .. integer(until_ms) .. ',' .. learned .. '}'
    if publish_with == 'SPUBLISH' then
      redis.call('SPUBLISH', channel, notice)
    else
      redis.call('PUBLISH', channel, notice)
    end
  end
end

local processes = math.max(1, redis.call('ZCARD', turns_key))
return {integer(pace and pace.epoch or 0), integer(granted), string.format('%.17g', first_ms), string.format('%.17g', spacing_ms),
  rate_now, ceiling, integer(until_ms - now_ms), integer(processes),
  integer(granted > 0 and pace and is_out(pace) and pace.probe_ms or 0), string.format('%.3f', fleet_rate)}
