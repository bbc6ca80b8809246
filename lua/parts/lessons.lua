-- What a refusal teaches: a line by line copy of lessons.py, where it is explained. Needs pacestate.lua.

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

local function blur_of(s, period_ms)
  return max(WINDOW_WAIT_MS, 0.02 * period_ms) + s.lag_ms
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
    local ends = abs(s.resume_ms - s.win_start_ms - s.period_ms) <= blur_of(s, s.period_ms)
    return not s.confirmed and 0 < s.budget and s.budget <= s.used and ends
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
    s.sent = s.served > 0 and s.served or max(0, s.sent)
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
    s.confirmed = s.budget > 0 and abs(period_ms - s.period_ms) <= blur_of(s, period_ms)
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
