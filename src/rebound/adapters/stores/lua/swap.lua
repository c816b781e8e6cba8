#!lua flags=allow-oom
-- Write a task that is not leased as it now is, or forget it, if it is as it was read.
-- ARGV[2..6] retention, see trim
-- ARGV[7]  id
-- ARGV[8..11] g, s, u and l as they were read, '' for none
-- ARGV[12] queue it is in
-- ARGV[13] state as for settle, or '' to forget it
-- ARGV[14] queue it goes to, [15] '1' for priority, [16] ms when it is due or ended, [17] progress
-- Result: 1, or 0 where it has changed

local id, queue, state = ARGV[7], ARGV[12], ARGV[13]
local key = P .. 't:' .. id
local found = call('HMGET', key, 'k', 'g', 's', 'u', 'l')
if found[1] or not found[2] then
  return 0
end
for i = 2, 5 do
  if (found[i] or '') ~= ARGV[6 + i] then
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
  call('HSET', key, 's', ARGV[17])
  call('HDEL', key, 'u', 'l')
  place(id, created_of(found[2]), state, ARGV[14], ARGV[15] == '1', ARGV[16])
end
head(kind_of(queue))
head(kind_of(ARGV[14]))
flush()
look(queue, true)
if ARGV[14] ~= queue then
  look(ARGV[14], true)
end
return 1
