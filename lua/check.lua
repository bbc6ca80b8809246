-- Try everything that the other scripts do on a scratch key of the namespace, and say what the server refuses.
--
-- KEYS  1 scratch       any  made and removed here
-- ARGV  1 channel       of the notices
--       2 greeting      a message of a kind that listeners ignore, sent where the right to publish cannot be asked for
--       3 publish_with  "PUBLISH", or "SPUBLISH" where channels belong to slots
-- returns {command, message, …}   empty when nothing is refused

local scratch_key = KEYS[1]
local channel, greeting, publish_with = ARGV[1], ARGV[2], ARGV[3]
local refused = {}

local function try(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    refused[#refused + 1] = (select(1, ...))
    refused[#refused + 1] = reply.err
  end
end

try('TIME')
try('DEL', scratch_key)
try('SET', scratch_key, '1', 'PXAT', '4102444800000')
try('GET', scratch_key)
try('EXISTS', scratch_key)
try('TYPE', scratch_key)
try('PEXPIREAT', scratch_key, '4102444800000')
try('DEL', scratch_key)
try('ZADD', scratch_key, '1', 'member')
try('ZSCORE', scratch_key, 'member')
try('ZCARD', scratch_key)
try('ZRANGEBYSCORE', scratch_key, '-inf', '+inf')
try('ZREVRANGE', scratch_key, '0', '0')
try('ZREM', scratch_key, 'member')
try('ZREMRANGEBYSCORE', scratch_key, '-inf', '0')
try('PEXPIRE', scratch_key, '1000')
try('DEL', scratch_key)
try('HSET', scratch_key, 'field', '1')
try('HGET', scratch_key, 'field')
try('HMGET', scratch_key, 'field')
try('HGETALL', scratch_key)
try('HVALS', scratch_key)
try('HDEL', scratch_key, 'field')
try('DEL', scratch_key)
try('XADD', scratch_key, 'MAXLEN', '~', '1', '*', 'field', '1')
try('XTRIM', scratch_key, 'MINID', '1')
try('DEL', scratch_key)
if redis.acl_check_cmd then
  if not redis.acl_check_cmd(publish_with, channel, '') then
    refused[#refused + 1] = publish_with
    refused[#refused + 1] = 'NOPERM this user may not ' .. publish_with .. ' to ' .. channel
  end
elseif publish_with == 'SPUBLISH' then
  try('SPUBLISH', channel, greeting)
else
  try('PUBLISH', channel, greeting)
end
return refused
