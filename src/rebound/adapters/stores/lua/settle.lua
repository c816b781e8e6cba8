#!lua flags=allow-oom
-- Write leased tasks as they now are and end their leases, where the token still matches.
-- ARGV[2..6] retention, see trim
-- ARGV[7]  number of queues, then the queues
-- then for each task: id, token, number of the queue it was claimed from, number of the queue it
--   goes to (negative: priority; 0: none), state, when it is due or ended, progress
--   (states: scheduled, succeeded, cancelled, dead, delivered = dead with a delivered dead letter,
--   unreadable = dead because it cannot be decoded: what it was is kept in r)
-- Result: {ids whose token did not match, {ages that a maximum cut off}}

local first = 8 + ARGV[7]
local lost, touched, leases, settled = {}, {}, {}, 0
local delivering, open = dropped('by:delivering'), dropped('by:open')

local function move(i, g)
  local id, state, number = ARGV[i], ARGV[i + 4], tonumber(ARGV[i + 3])
  local old, new = ARGV[7 + ARGV[i + 2]], number ~= 0 and ARGV[7 + math.abs(number)]
  touched[old] = true
  if new then
    touched[new] = true
  else
    open[#open + 1] = id
  end
  local list = leases[old] or dropped('x:' .. old)
  leases[old] = list
  list[#list + 1] = id
  delivering[#delivering + 1] = id
  place(id, created_of(g), state, new, number < 0, ARGV[i + 5])
end

for i = first, #ARGV, 7 do
  local key, token = P .. 't:' .. ARGV[i], ARGV[i + 1]
  local found = redis.pcall('HMGET', key, 'k', 'k0', 'g', 'l') -- a string is not leased
  if found[1] == token and found[2] ~= token then
    settled = settled + 1
    if ARGV[i + 4] == 'unreadable' then
      call('HSET', key, 'r', call('HGET', key, 's') or '')
    end
    call('HSET', key, 's', ARGV[i + 6], 'k0', token)
    if found[4] then
      call('HDEL', key, 'l')
    end
    move(i, found[3])
  elseif found[2] ~= token then
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
return { lost, trim(2 * settled) }
