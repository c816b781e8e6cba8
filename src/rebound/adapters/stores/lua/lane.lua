#!lua flags=no-writes
-- What stands of a lane, at one moment.
-- ARGV[2]  queue
-- Result: the time; scores in lanes, lanes! and waits; first score in d, d! and x; when the lane
--   is full, the first end of a lease, or 'inf'; until, limit and full of its hash

local queue, kind = ARGV[2], kind_of(ARGV[2])
local state = call('HMGET', P .. 'h:' .. queue, 'until', 'limit', 'full')
local shut = false
if state[3] and call('ZCOUNT', P .. 'x:' .. queue, '(' .. NOW, '+inf') >= tonumber(state[3]) then
  shut = fmt(first_after('x:' .. queue, '(' .. NOW))
end

local function head_or_nil(set)
  return call('ZRANGE', P .. set .. queue, 0, 0, 'WITHSCORES')[2] or false
end

return {
  NOW, call('ZSCORE', P .. 'lanes:' .. kind, queue), call('ZSCORE', P .. 'lanes!:' .. kind, queue),
  call('ZSCORE', P .. 'waits:' .. kind, queue), head_or_nil('d:'), head_or_nil('d!:'),
  head_or_nil('x:'), shut, unpack(state),
}
