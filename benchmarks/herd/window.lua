-- Take the next place in the upstream's windows, if need be in one that is yet to begin, and say when it does.
--
-- KEYS  1 last       hash     number: the last window that places were taken in; taken: how many
-- ARGV  1 now_us     integer  a clock that all callers share
--       2 origin_us  integer  when window 0 began
--       3 window_us  integer  length of a window
--       4 limit      integer  places in each
-- returns wait_us, the time until the caller may call

local now_us, origin_us = tonumber(ARGV[1]), tonumber(ARGV[2])
local window_us, limit = tonumber(ARGV[3]), tonumber(ARGV[4])
local last = redis.call('HMGET', KEYS[1], 'number', 'taken')
local number, taken = tonumber(last[1] or 0), tonumber(last[2] or 0)
local current = math.floor((now_us - origin_us) / window_us)
if current > number then
  number, taken = current, 0
elseif taken == limit then
  number, taken = number + 1, 0
end
redis.call('HSET', KEYS[1], 'number', string.format('%d', number), 'taken', string.format('%d', taken + 1))
return math.max(0, origin_us + number * window_us - now_us)
