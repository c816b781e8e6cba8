#!lua
-- Read tasks newest first, merged from several sets.
-- ARGV[2], [3] score and id behind which to begin ('+inf', '' for the newest)
-- ARGV[4]  how many to read, [5] bytes after which to stop
-- ARGV[6]  set whose members are left out, or '', then the sets to merge
-- Result: {1 if there may be more, score and id of the last one looked at,
--   {for each: {score, id, g, b, s, k, k0, l, f}}}

local top, count, most = ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
local after = tonumber(top)

-- An iterator over one set, from behind the cursor.
local function newest(set)
  local rows, at, offset = {}, 1, 0
  return function()
    while true do
      if at > #rows then
        rows = call('ZRANGE', P .. set, top, '-inf', 'BYSCORE', 'REV', 'LIMIT', offset, 100,
          'WITHSCORES')
        at, offset = 1, offset + 100
        if #rows == 0 then
          return nil
        end
      end
      local id, score = rows[at], rows[at + 1]
      at = at + 2
      if tonumber(score) < after or id < ARGV[3] then
        return { score, id, tonumber(score) }
      end
    end
  end
end

local sources, heads_of = {}, {}
for i = 7, #ARGV do
  sources[#sources + 1] = newest(ARGV[i])
  heads_of[#sources] = sources[#sources]() or false
end

local function pop()
  local best
  for i, one in ipairs(heads_of) do
    if one and (not best or one[3] > heads_of[best][3]) then
      best = i
    end
  end
  if best then
    local one = heads_of[best]
    heads_of[best] = sources[best]() or false
    return one[1], one[2]
  end
end

local rows, bytes, more, last_score, last_id = {}, 0, 1, top, ARGV[3]
for _ = 1, count do
  local score, id = pop()
  if not score then
    more = 0
    break
  end
  last_score, last_id = score, id
  if ARGV[6] == '' or not call('ZSCORE', P .. ARGV[6], id) then
    local row = record(P .. 't:' .. id, 's', 'k', 'k0', 'l', 'f')
    if row[1] or row[2] then
      rows[#rows + 1] = { score, id, unpack(row) }
      bytes = bytes + #(row[2] or '') + #(row[3] or '')
      if bytes > most then
        break
      end
    end
  end
end
return { more, last_score, last_id, rows }
