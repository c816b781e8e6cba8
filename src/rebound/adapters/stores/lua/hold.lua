#!lua flags=allow-oom
-- Hold a lane, or release it.
-- ARGV[2]  queue
-- ARGV[3]  how long to hold it, or '' to release it

local hash = P .. 'h:' .. ARGV[2]
head(kind_of(ARGV[2]))
call('HDEL', hash, 'full') -- the next claim finds out again
call('ZREM', P .. 'waits:' .. kind_of(ARGV[2]), ARGV[2])
if ARGV[3] == '' then
  call('HDEL', hash, 'until')
else
  call('HSET', hash, 'until', fmt(now + ARGV[3]))
end
look(ARGV[2])
