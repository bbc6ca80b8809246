-- Remove keys of the namespace that are of another type than ours: somebody else's garbage, on which every call fails.
--
-- Nothing of ours is lost by that: whatever had been there is gone already. What can be made anew is made anew, as
-- after an eviction: the order begins a new epoch, the index is restored from the limits' keys.
--
-- KEYS  1 order               hash
--       2 active              zset
--       3 causes              hash
--       4 events              stream
--       5 clears              zset
--       6 paces               zset
--       7 holds               hash
--       8 applied:<client>    string
-- ARGV  1.. one per key: the type that it has to be of
-- returns the names of the keys that were removed

local removed = {}
for position, key in ipairs(KEYS) do
  local found = redis.call('TYPE', KEYS[position]).ok
  if found ~= 'none' and found ~= ARGV[position] then
    redis.call('DEL', KEYS[position])
    removed[#removed + 1] = key
  end
end
return removed
