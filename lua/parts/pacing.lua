-- How turns are taken: a line by line copy of pacing.py, where it is explained. Needs lessons.lua and probing.lua.

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
