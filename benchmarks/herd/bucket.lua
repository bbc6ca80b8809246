-- Take the next token of a bucket that everyone shares, if need be one that is yet to fall, and say when it does (GCRA).
--
-- KEYS  1 taken    string   when the last token taken would fall into a bucket that holds one, in us
-- ARGV  1 now_us   integer  a clock that all callers share
--       2 every_us integer  time between two tokens
--       3 burst    integer  tokens in a full bucket
-- returns wait_us, the time until the caller may call

local now_us, every_us, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local falls_at_us = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now_us)
redis.call('SET', KEYS[1], string.format('%d', falls_at_us + every_us))
return math.max(0, falls_at_us - (burst - 1) * every_us - now_us)
