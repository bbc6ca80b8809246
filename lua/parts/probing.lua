-- What becomes of a probe: a line by line copy of probing.py, where it is explained. Needs max, min and PROBE_PATIENCE_MS.

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
