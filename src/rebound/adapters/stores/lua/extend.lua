#!lua flags=allow-oom
-- Let leases end later, where the token still matches.
-- ARGV[2]  lease
-- ARGV[3]  number of queues, then the queues
-- then for each task: id, token, number of the queue it was claimed from
-- Result: ids whose token did not match

local first, ends = 4 + ARGV[3], fmt(now + ARGV[2])
local lost, touched = {}, {}
for i = first, #ARGV, 3 do
  local key, token = P .. 't:' .. ARGV[i], ARGV[i + 1]
  local found = redis.pcall('HMGET', key, 'k', 'k0') -- a string is not leased
  if found[1] == token and found[2] ~= token then
    local queue = ARGV[3 + ARGV[i + 2]]
    touched[queue] = true
    put('x:' .. queue, ends, ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
for queue in pairs(touched) do
  head(kind_of(queue))
end
flush()
for queue in pairs(touched) do
  look(queue)
end
return lost
