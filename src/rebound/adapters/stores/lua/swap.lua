#!lua flags=allow-oom
-- Write a task that is not leased as it now is, or forget it, if it is as it was read.
-- ARGV[2]  id
-- ARGV[3..6] g, s, u and l as they were read, '' for none
-- ARGV[7] queue it is in, '' for none
-- ARGV[8] state as for settle, or '' to forget it
-- ARGV[9] queue it goes to or '', [10] '1' for priority, [11] when it is due or ended, [12] progress
-- Result: 1, or 0 where it has changed

local id, queue, state = ARGV[2], ARGV[7], ARGV[8]
local key = P .. 't:' .. id
local found = call('HMGET', key, 'k', 'g', 's', 'u', 'l')
if found[1] or not found[2] then
  return 0
end
for i = 2, 5 do
  if (found[i] or '') ~= ARGV[1 + i] then
    return 0
  end
end

for _, set in ipairs({ 'd:' .. queue, 'd!:' .. queue, 'by:open', 'by:succeeded', 'by:dead',
  'by:cancelled', 'end:succeeded', 'end:stub', 'end:dead', 'end:cancelled' }) do
  drop(set, id)
end
if state == '' then
  call('DEL', key)
else
  call('HSET', key, 's', ARGV[12])
  call('HDEL', key, 'u', 'l')
  place(id, created_of(found[2]), state, ARGV[9], ARGV[10] == '1', ARGV[11])
end
local touched = { [queue] = queue ~= '', [ARGV[9]] = ARGV[9] ~= '' }
for name in pairs(touched) do
  head(kind_of(name))
end
flush()
for name, is_one in pairs(touched) do
  if is_one then
    look(name, true)
  end
end
return 1
