-- How one task stands under t:<id>, for every script that reads it: put in front of common.lua.
--
-- Until its first claim it is a string, header and body; from then on, or where something has
-- become of it earlier, or where it is large, a hash with the header as g and the body as b, and
-- further fields (docs/internals.md). A hash from before there were headers has text as g:
--   <creation> <digest as hex> <nonce> <1 for priority> <when it was first due>
--
-- The header, integers with the highest byte first (so its first byte is 0, and no text's):
--   1   creation      8 bytes, microseconds since the epoch
--   9   first due     8 bytes, likewise
--   17  priority      1 byte, 0 or 1
--   18  digest       16 bytes
--   34  nonce         8 bytes

local call = redis.call
local HEADER, TWO_32 = 41, 4294967296

-- The two times of a header. In halves, for a whole of eight bytes takes a Redis of 64 bits.
local function packed(created, due)
  return struct.pack('>I4I4I4I4', created / TWO_32, created % TWO_32, due / TWO_32, due % TWO_32)
end

-- Header and body of a string; where it does not begin with a header, '' and all of it.
local function parted(text)
  if #text > HEADER and string.byte(text) == 0 then
    return string.sub(text, 1, HEADER), string.sub(text, HEADER + 1)
  end
  return '', text
end

-- g, b and further fields of a record, as HMGET gives them; and whether it is a string, which has
-- no others. What is neither string nor hash gives only an `err`. MGET, for it refuses no type.
local function record(key, ...)
  local text = call('MGET', key)[1]
  if text then
    return { parted(text) }, true
  end
  return redis.pcall('HMGET', key, 'g', 'b', ...), false
end

-- Turn a string into a hash that also has further fields; `found` is what record() gave of it.
local function unfold(key, found, ...)
  call('DEL', key)
  call('HSET', key, 'g', found[1], 'b', found[2], ...)
end

-- The creation as a score, 0 where it is not known.
local function created_of(g)
  if not g then
    return 0
  elseif #g == HEADER then
    local high, low = struct.unpack('>I4I4', g)
    return high * TWO_32 + low
  end
  return string.match(g, '^%d+') or 0
end

local function is_urgent(g)
  if not g then
    return false
  elseif #g == HEADER then
    return string.byte(g, 17) == 1
  end
  return string.match(g, '^%S+ %S+ %S+ (%S+)') == '1'
end
