-- How what is left is spread: a line by line copy of spreading.py, where it is explained.

local SPREAD_FIELDS = {'spread_rate', 'spread_ms', 'next_rate', 'free_ms'}
local SPREAD_GRACE_MS = 10000

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
