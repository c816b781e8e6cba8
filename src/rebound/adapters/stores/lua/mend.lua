#!lua flags=allow-oom
-- Put ids into the sets where they belong, if the record is as it was read; see to their lane.
-- ARGV[2]  queue or ''
-- ARGV[3]  id or '', [4..9] g, s, k, k0, l and f of its record as they were read, '' for none
-- ARGV[10...] set, and its score for the id: '' takes the id out, any other puts it in if it is not
-- Result: 1, or 0 where the record has changed

local queue, id, key = ARGV[2], ARGV[3], P .. 't:' .. ARGV[3]
if id ~= '' then
  local found = record(key, 's', 'k', 'k0', 'l', 'f')
  table.remove(found, 2) -- the body
  for i = 1, 6 do
    if (found[i] or '') ~= ARGV[3 + i] then
      return 0
    end
  end
end
if queue ~= '' then
  head(kind_of(queue))
end
for i = 10, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    call('ZREM', P .. ARGV[i], id)
  else
    call('ZADD', P .. ARGV[i], 'NX', ARGV[i + 1], id)
  end
end
if queue ~= '' then
  local kind = kind_of(queue)
  if call('HEXISTS', P .. 'h:' .. queue, 'full') == 0 then
    call('ZREM', P .. 'waits:' .. kind, queue)
  end
  urgent_kinds[kind] = true -- `lanes!` may be what is missing
  look(queue)
end
return 1
