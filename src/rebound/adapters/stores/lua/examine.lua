#!lua flags=no-writes
-- Read records and where they stand, at one moment.
-- ARGV[2]  '1' with bodies; else '1' stands for a body
-- ARGV[3]  bytes after which to stop
-- ARGV[4]  number of sets, then the sets; for those that end with ':' the queue is put behind
-- then for each: id, queue or ''
-- Result: for each, until it stopped: {1 if there is something that is no record,
--   {g, b, s, k, k0, l, f}, {score in each set}}

local bytes, most, sets = 0, tonumber(ARGV[3]), tonumber(ARGV[4])

-- Nothing of what is no record, such as a string without a header.
local function fields_of(key)
  local found, is_string = record(key, 's', 'k', 'k0', 'l', 'f')
  if found.err or is_string and found[1] == '' then
    return nil
  end
  bytes = bytes + #(found[2] or '') + #(found[3] or '')
  if found[2] and ARGV[2] ~= '1' then
    found[2] = '1'
  end
  return found
end

local rows = {}
for i = 5 + sets, #ARGV, 2 do
  local id, queue = ARGV[i], ARGV[i + 1]
  local fields, scores = fields_of(P .. 't:' .. id), {}
  for j = 1, sets do
    local set = ARGV[4 + j]
    if string.sub(set, -1) ~= ':' then
      scores[j] = call('ZSCORE', P .. set, id)
    else
      scores[j] = queue ~= '' and call('ZSCORE', P .. set .. queue, id)
    end
  end
  rows[#rows + 1] = { fields and 0 or 1, fields or {}, scores }
  if bytes > most then
    break
  end
end
return rows
