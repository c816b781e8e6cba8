#!lua flags=allow-oom
-- Write a task that is not leased as it now is, or forget it, if it is as it was read.
-- ARGV[2]  id
-- ARGV[3..5] g, s and l as they were read, '' for none
-- ARGV[6] queue it is in, '' for none
-- ARGV[7] state as for settle, or '' to forget it
-- ARGV[8] queue it goes to or '', [9] '1' for priority, [10] when it is due or ended, [11] progress
-- Result: 1, or 0 where it has changed

local id, queue, state = ARGV[2], ARGV[6], ARGV[7]
local key = P .. 't:' .. id
local found = call('HMGET', key, 'k', 'g', 's', 'l', 'k0')
local leased = found[1] and found[1] ~= '' and found[1] ~= found[5]
if leased or call('EXISTS', key) == 0 then
  return 0
end
for i = 2, 4 do
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
  call('HSET', key, 's', ARGV[11])
  call('HDEL', key, 'l')
  place(id, created_of(found[2]), state, ARGV[8], ARGV[9] == '1', ARGV[10])
end
local touched = { [queue] = queue ~= '', [ARGV[8]] = ARGV[8] ~= '' }
for name in pairs(touched) do
  head(kind_of(name))
end
flush()
for name, is_one in pairs(touched) do
  if is_one then
    look(name)
  end
end
return 1
