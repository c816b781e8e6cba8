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
local found, is_string = record(key, 's', 'l', 'k', 'k0')
local g, body, progress, losses, token, settled = unpack(found)
if not (g or body) or token and token ~= '' and token ~= settled then
  return 0
end
if (g or '') ~= ARGV[3] or (progress or '') ~= ARGV[4] or (losses or '') ~= ARGV[5] then
  return 0
end

for _, set in ipairs({ 'd:' .. queue, 'd!:' .. queue, 'by:open', 'by:succeeded', 'by:dead',
  'by:cancelled', 'end:succeeded', 'end:stub', 'end:dead', 'end:cancelled' }) do
  drop(set, id)
end
if state == '' then
  call('DEL', key)
else
  if is_string then
    unfold(key, found, 's', ARGV[11])
  else
    call('HSET', key, 's', ARGV[11])
    call('HDEL', key, 'l')
  end
  place(id, created_of(g), state, ARGV[8], ARGV[9] == '1', ARGV[10])
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
