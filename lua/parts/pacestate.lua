-- What follows from what is remembered of a pace: a line by line copy of pacestate.py, where it is explained.

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
local SEARCH_TAU_MOST_MS = 12000
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
  s.tau_ms = max(SEARCH_TAU_MS, SEARCH_LAGS * (s.lag_ms - SHORT_LAG_MS), min(1000 * SEARCH_CALLS / base, SEARCH_TAU_MOST_MS))
end
