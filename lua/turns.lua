-- Take turns of a target's pace, and tell what was served; the first request after a refusal draws its lesson.
--
-- What is remembered of a pace is a hash of numbers, and every function that changes it is a line by line copy of the
-- one of the same name in pacing.py, pacestate.py or lessons.py, where it is explained. Turns are granted in the order in
-- which processes ask: each is told when to ask again, one turn after the last of those who wait already.
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

local SPREAD_FIELDS = {'spread_rate', 'spread_ms', 'next_rate', 'free_ms'}
-- As in spreading.py.
local SPREAD_GRACE_MS = 10000

-- As in pacestate.py.
local APPROACH_FROM = 0.98
local APPROACH_RATE = 0.08
local APPROACH_TO = 1.02
local BEYOND_CALLS = 50
local BEYOND_LAGS = 12
local BEYOND_STEP = 0.02
local BEYOND_TAU_MS = 6000
local CATCH_UP_MS = 50
local CLOSED_MISSES = 2
local CUT_CALLS = 4
local CUT_LEAST = 0.005
local CUT_MOST = 0.03
local FIRST_CUT = 0.1
local FIRST_PLATEAU_MS = 2500
local FIRST_STOPS = 3
local IDLE_WEIGHT = 10
local LAGS_MAX_MS = 40000
local LONG_STOP_MS = 60000
local PLATEAU_CALLS = 400
local PLATEAU_CALLS_MIN = 40
local PLATEAU_LAGS = 20
local PLATEAU_MIN_MS = 4000
local PLATEAU_STOPS = 35
local POOR_CALLS = 5
local PROBE_LEASE_MS = 4000
local PROBE_PATIENCE_MS = 5000
local QUIET_MS = 1000
local SEARCH_CALLS = 18
local SEARCH_FROM = 150
local SEARCH_LAGS = 30
local SEARCH_TAU_MS = 4000
local SHORT_LAG_MS = 50
local START_FROM = 100
local START_LAG_MS = 300
local START_MORE = 1.2
local UNEVEN = 0.9
local WINDOW_FAST_PART = 0.92
local WINDOW_GUARD_MS = 250
local WINDOW_PERIODS_S = {5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400}
local WINDOW_PROBE_CALLS = 300
local WINDOW_SPREAD = 4
local WINDOW_TURNS = 3
local WINDOW_WAIT_MS = 1500

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

local abs, ceil, floor, max, min = math.abs, math.ceil, math.floor, math.max, math.min

local function rate(s, ahead_ms)
  local grown_ms = max(0, s.grown_ms + (ahead_ms or 0))
  if s.budget > 0 and not s.paced and not s.over then
    local mean = 1000 * s.budget / s.period_ms
    return s.used <= WINDOW_FAST_PART * s.budget and WINDOW_SPREAD * mean or mean
  end
  if s.searching then
    local y = 1 + grown_ms / s.tau_ms
    return s.base * y * y * y * y
  end
  if grown_ms < s.plateau_ms then
    local x = 1 - grown_ms / s.plateau_ms
    return s.ceiling - (s.ceiling - s.base) * x * x * x
  end
  local z = 1 + (grown_ms - s.plateau_ms) / s.tau_ms
  return s.ceiling * (1 + BEYOND_STEP * (z * z * z * z - 1))
end

local function spacing_of(s, ahead_ms)
  if APPROACH_FROM * s.closed_after <= s.sent and s.sent < APPROACH_TO * s.closed_after then
    return 1000 / (APPROACH_RATE * rate(s, ahead_ms))
  end
  return 1000 / rate(s, ahead_ms)
end

local function gate_ms(s)
  return min(max(100, 1.25 * s.lag_ms), s.over and s.period_ms / 2 or 1000)
end

local function search(s, base)
  s.base, s.searching, s.grown_ms = base, true, 0
  s.tau_ms = max(SEARCH_TAU_MS, SEARCH_LAGS * (s.lag_ms - SHORT_LAG_MS), min(1000 * SEARCH_CALLS / base, 20000))
end

local function burst(s, served_rate)
  if s.burst_ms > 0 then
    return max(1, s.burst / 4, s.burst - served_rate * s.burst_ms / 1000)
  end
  return s.burst
end

local function model(s)
  local grown = s.searching and s.grown_ms or s.grown_ms - s.plateau_ms
  if grown <= 0 then
    return 0
  end
  local a = s.searching and s.base or s.ceiling * BEYOND_STEP
  local c = s.searching and 0 or s.ceiling - a
  local z1 = 1 + grown / s.tau_ms
  local low, high = 1, z1
  for _ = 1, 24 do
    local z0 = (low + high) / 2
    local z4 = z0 * z0 * z0 * z0
    local calls = a * s.tau_ms / 1000 * ((z1 * z1 * z1 * z1 * z1 - z4 * z0) / 5 - z4 * (z1 - z0))
    if calls > UNEVEN * burst(s, a * z4 + c) + s.refused then
      low = z0
    else
      high = z0
    end
  end
  return low > 1 and a * low * low * low * low + c or 0
end

local function usual_period(period_ms, lag_ms)
  local best = 0
  for _, seconds in ipairs(WINDOW_PERIODS_S) do
    if abs(period_ms - 1000 * seconds) < abs(period_ms - best) then
      best = 1000 * seconds
    end
  end
  return abs(period_ms - best) <= max(WINDOW_WAIT_MS, 0.02 * period_ms) + lag_ms and best or period_ms
end

local function is_window(s, into)
  if s.told_ms <= WINDOW_WAIT_MS then
    return false
  end
  local same = abs(s.told_ms - s.prev_told_ms) <= 0.02 * s.told_ms
  if same and abs(into - s.prev_into_ms) > max(1000, 0.25 * s.told_ms) + s.lag_ms then
    s.guess_ms = s.told_ms
  end
  if abs(s.told_ms - s.guess_ms) <= 0.02 * s.told_ms then
    return false
  end
  return s.told_ms * s.used >= WINDOW_TURNS * (into + s.told_ms)
end

local function careful(served_rate, below)
  return served_rate / (1 + served_rate / below)
end

local function catch_up(s, now_ms)
  local late = s.served - s.sent
  if late > 0 then
    local base = careful(1000 * (s.burst + late) / max(1000, now_ms - s.begun_ms), SEARCH_FROM)
    if base > rate(s) then
      search(s, base)
    end
  end
end

local function first_pace(s)
  local served_rate = 1000 * s.sent / max(s.told_ms, s.resume_ms - s.mark_ms - s.lag_ms / 2, 1000)
  local slowest = 1000 / max(s.resume_ms - s.cross_ms, 1000)
  local more = min(START_MORE, START_LAG_MS / max(1, s.lag_ms)) * max(0, served_rate - 2 * slowest)
  s.paced = true
  search(s, max(careful(served_rate, SEARCH_FROM), careful(served_rate + more, START_FROM), slowest))
end

local function estimate_of(s, stop)
  local beyond = s.paced and not s.searching and s.cross_rate / s.ceiling or 1
  if 1.15 < beyond and beyond < 2.5 and stop < 2000 then
    s.burst = s.burst * max(0.25, 1 / (beyond * beyond))
  end
  local counted = max(1, s.sent)
  local unwasted = 1000 * (s.sent + 0.5) / max(1, s.cross_ms - s.mark_ms)
  local lower = max(unwasted, 1000 * (s.sent - burst(s, s.cross_rate)) / max(1, s.cross_ms - s.start_ms))
  local agree = abs(lower - s.lower) <= (0.05 + 1 / counted) * lower
  local kept = abs(unwasted - s.unwasted) <= (0.05 + 1 / counted) * unwasted
  kept = kept and not agree and not s.searching and s.burst <= 1
  s.lower, s.unwasted = lower, unwasted
  if kept then
    s.burst, s.burst_ms = max(s.burst, unwasted * stop / 1000), 0
    return min(unwasted, s.cross_rate), true
  end
  local exact = agree and beyond <= 1.15 and lower * stop / 1000 <= 1.1 * burst(s, lower)
  local estimate = max(lower, model(s))
  if s.paced and not exact then
    local least = s.searching and 0.4 or 0.8
    if beyond > 1 then
      least = stop < 2000 and 0.65 or 0.5
    end
    estimate = max(estimate, least * s.cross_rate)
  end
  return min(estimate, s.cross_rate), exact
end

local function cut(s)
  local stop, searched, counted = s.resume_ms - s.cross_ms, s.searching, max(1, s.sent)
  local estimate, exact = estimate_of(s, stop)
  if not s.paced and s.sent < POOR_CALLS then
    s.paced = true
    search(s, estimate)
    return
  end
  if s.paced and not searched then
    s.burst, s.burst_ms = burst(s, estimate), 0
  end
  local below = searched and FIRST_CUT or min(CUT_MOST, max(CUT_LEAST, CUT_CALLS / counted))
  s.paced, s.searching, s.grown_ms, s.ceiling, s.base = true, false, 0, estimate, (1 - below) * estimate
  local tau_ms = max(BEYOND_TAU_MS, min(BEYOND_LAGS * s.lag_ms, LAGS_MAX_MS), 1000 * BEYOND_CALLS / estimate)
  s.tau_ms = min(tau_ms, s.forget_ms * 2 / 9)
  local lost = max(0, stop - 1000 * s.burst / estimate)
  local plateau_ms
  if searched then
    plateau_ms = max(FIRST_PLATEAU_MS, 1000 * PLATEAU_CALLS_MIN / estimate, FIRST_STOPS * lost * lost / 1000)
  else
    local sure = exact and 1 or max(0.3, 1 - 2 * (s.cross_rate - estimate) / s.cross_rate)
    local calls = max(PLATEAU_CALLS_MIN, sure * min(PLATEAU_CALLS, 10 + 4 * s.sent))
    local stops = PLATEAU_STOPS * lost * (lost < 2000 and sure or 1)
    plateau_ms = max(PLATEAU_MIN_MS, 1000 * calls / estimate, stops)
  end
  s.plateau_ms = min(max(plateau_ms, min(PLATEAU_LAGS * s.lag_ms, LAGS_MAX_MS)), s.forget_ms * 4 / 9)
end

local function learn(s)
  local first_ever = not s.pacing
  s.cross_rate = first_ever and 0 or rate(s, -s.lag_ms)
  s.gate = first_ever or s.misses > 0 or s.told_ms > WINDOW_WAIT_MS
  s.probing = first_ever or s.misses > 0 or (s.told_ms >= LONG_STOP_MS and not s.confirmed)
  s.pending, s.pacing = false, true
  s.next_free_ms, s.last_ms = s.resume_ms, s.resume_ms
  local into = s.cross_ms - s.win_start_ms
  if first_ever then
    s.sent = max(s.sent, s.served)
    s.used = s.sent
    s.burst, s.burst_ms = s.sent, max(s.lag_ms / 2, s.cross_ms - s.mark_ms - s.lag_ms)
    s.begun_ms = s.mark_ms
  elseif s.sent <= 0 or (s.budget > 0 and s.used <= 0) then
    s.next_free_ms = s.resume_ms + min(s.told_ms * s.misses, 60000)
    s.last_ms = s.next_free_ms
    s.misses, s.gate, s.probing, s.sent = s.misses + 1, true, true, max(0, s.sent)
    if s.misses >= CLOSED_MISSES then
      s.closed_after = s.last_sent
    end
    if s.budget > 0 and s.used <= 0 then
      s.win_start_ms = s.resume_ms
    end
    return
  elseif s.confirmed and not s.paced and s.told_ms <= WINDOW_WAIT_MS and s.misses < 3 then
    s.misses = s.misses + 1
    s.win_start_ms = s.win_start_ms + s.resume_ms - s.cross_ms + gate_ms(s)
    if s.over then
      s.win_start_ms, s.used, s.over = s.resume_ms, 0, false
    end
    return
  end
  s.closed_after = s.misses >= CLOSED_MISSES and s.closed_after or 0
  s.misses, s.last_sent = 0, s.sent
  if is_window(s, into) then
    local period_ms = usual_period(s.resume_ms - s.win_start_ms, s.lag_ms)
    local blur_ms = max(WINDOW_WAIT_MS, 0.02 * period_ms) + s.lag_ms
    s.confirmed = s.budget > 0 and abs(period_ms - s.period_ms) <= blur_ms
    s.period_ms = s.confirmed and max(period_ms, s.period_ms) or period_ms
    s.budget, s.used, s.win_start_ms, s.over, s.skipped = max(1, s.used), 0, s.resume_ms, false, 0
    s.prev_told_ms, s.prev_into_ms = s.told_ms, into
    s.grown_ms = s.searching and max(0, s.grown_ms - s.lag_ms) or 0
  else
    if first_ever then
      first_pace(s)
    else
      cut(s)
    end
    if s.told_ms > WINDOW_WAIT_MS then
      s.budget, s.confirmed, s.win_start_ms, s.used = 0, false, s.resume_ms, 0
    end
  end
  s.mark_ms, s.start_ms, s.sent, s.served = s.cross_ms, s.next_free_ms, 0, 0
end

local function begin_window(s, now_ms)
  if s.budget <= 0 then
    return
  end
  if s.confirmed and now_ms >= s.win_start_ms + s.period_ms then
    if s.over then
      s.budget = max(s.budget, s.used)
    end
    local step = s.period_ms + min(max(WINDOW_GUARD_MS, s.lag_ms), 0.05 * s.period_ms)
    s.win_start_ms = s.win_start_ms + max(1, floor((now_ms - s.win_start_ms) / step)) * step
    s.used, s.over, s.gate, s.misses, s.skipped = 0, false, true, 0, s.skipped + 1
    s.next_free_ms = max(s.next_free_ms, s.win_start_ms)
    s.last_ms = s.next_free_ms
    s.grown_ms = s.searching and s.grown_ms or 0
  end
  if s.used < s.budget or s.over then
    return
  end
  if s.confirmed and s.skipped * s.budget < WINDOW_PROBE_CALLS then
    s.next_free_ms = max(s.next_free_ms, s.win_start_ms + s.period_ms)
    s.last_ms = s.next_free_ms
    return
  end
  s.over, s.gate, s.skipped = true, true, 0
  if not s.paced then
    search(s, 1000 * s.budget / s.period_ms)
    s.last_ms = now_ms
  end
end

local function tick(s, now_ms)
  local idle = max(0, now_ms - s.next_free_ms - CATCH_UP_MS)
  s.grown_ms = s.grown_ms + max(0, now_ms - s.last_ms - IDLE_WEIGHT * idle)
  s.mark_ms, s.start_ms = s.mark_ms + idle, s.start_ms + idle
  s.last_ms = max(s.last_ms, now_ms)
end

local function is_out(s)
  return s.probing and not s.gate
end

local function free(s)
  s.gate, s.next_free_ms = true, max(s.resume_ms, min(s.probe_ms, s.next_free_ms))
end

local function open(s, now_ms)
  s.probing = false
  s.start_ms = max(now_ms, s.start_ms)
  s.next_free_ms, s.last_ms = s.start_ms, s.start_ms
end

local function lapse(s, now_ms)
  if is_out(s) and now_ms >= s.next_free_ms then
    if now_ms - max(s.probe_ms, s.resume_ms) >= PROBE_PATIENCE_MS then
      open(s, now_ms)
    else
      free(s)
    end
  end
end

local function take(s, now_ms, wanted, horizon_ms)
  local resume_ms = s.pending and max(s.resume_ms, s.cross_ms + gate_ms(s)) or s.resume_ms
  if now_ms < resume_ms then
    return resume_ms - now_ms, 0, 0
  end
  if s.pending and not s.pacing and s.sent > 2 * s.served and now_ms < s.answer_ms + QUIET_MS then
    return s.answer_ms + QUIET_MS - now_ms, 0, 0
  end
  if is_out(s) and now_ms < s.next_free_ms then
    return s.next_free_ms - now_ms, 0, 0
  end
  if s.pending then
    s.resume_ms = resume_ms
    learn(s)
  end
  lapse(s, now_ms)
  begin_window(s, now_ms)
  if wanted > 0 then
    tick(s, now_ms)
  end
  local first_ms, spacing_ms = max(now_ms, ceil(s.next_free_ms)), spacing_of(s, max(0, s.next_free_ms - now_ms))
  if wanted <= 0 or first_ms > now_ms + horizon_ms then
    return first_ms - now_ms, spacing_ms, 0
  end
  local due_ms = max(s.next_free_ms, now_ms - CATCH_UP_MS)
  local count = min(wanted, floor((now_ms + horizon_ms - due_ms) / spacing_ms) + 1)
  if s.budget > 0 and not s.over then
    count = max(0, min(count, s.budget - s.used))
  end
  if s.sent < APPROACH_FROM * s.closed_after then
    count = min(count, ceil(APPROACH_FROM * s.closed_after - s.sent))
  end
  if s.gate and count > 0 then
    count, s.gate = 1, false
    s.next_free_ms = first_ms + max(spacing_ms, s.probing and 0 or gate_ms(s))
    s.start_ms = s.sent > 0 and s.start_ms or s.next_free_ms
    if s.probing then
      s.probe_ms, s.next_free_ms = max(first_ms, s.probe_ms + 1), first_ms + PROBE_LEASE_MS
    end
  else
    s.next_free_ms = due_ms + count * spacing_ms
  end
  s.sent, s.used = s.sent + count, s.used + count
  return first_ms - now_ms, spacing_ms, count
end

local function awaited(s, now_ms)
  if s.pacing and not s.pending and not is_out(s) then
    s.next_free_ms = max(s.next_free_ms, now_ms - CATCH_UP_MS)
  end
end

local function give_back(s, count, epoch)
  if epoch ~= s.epoch - (s.pending and 1 or 0) then
    return
  end
  s.sent, s.used = max(0, s.sent - count), max(0, s.used - count)
  if count > 0 and is_out(s) and not s.pending then
    free(s)
  elseif s.pacing and not s.pending then
    s.next_free_ms = max(s.resume_ms, s.next_free_ms - count * 1000 / rate(s))
  end
end

local function tell(s, now_ms, count, since_ms)
  if not s.pacing then
    s.served = s.served + count
    s.mark_ms = min(s.mark_ms, now_ms - since_ms)
    s.win_start_ms = s.mark_ms
  elseif s.searching and s.ceiling == 0 then
    s.served = s.served + count
    catch_up(s, now_ms)
  end
end

local function spread_rate(s, now_ms)
  return now_ms < s.spread_ms and s.spread_rate or s.next_rate
end

local function spread_turns(s, now_ms, wanted, horizon_ms)
  local spacing_ms, first_ms = 1000 / spread_rate(s, now_ms), max(now_ms, s.free_ms)
  local last_ms = now_ms + horizon_ms
  if now_ms < s.spread_ms then
    last_ms = min(last_ms, s.spread_ms - 1)
    first_ms = min(first_ms, s.spread_ms)
  end
  if wanted <= 0 or first_ms > last_ms then
    return first_ms - now_ms, spacing_ms, 0
  end
  return first_ms - now_ms, spacing_ms, min(wanted, floor((last_ms - first_ms) / spacing_ms) + 1)
end

local function spread_taken(s, now_ms, count)
  s.free_ms = max(now_ms, max(now_ms, s.free_ms) + count * 1000 / spread_rate(s, now_ms))
  if now_ms < s.spread_ms then
    s.free_ms = min(s.free_ms, s.spread_ms)
  end
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
