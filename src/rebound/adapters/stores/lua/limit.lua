#!lua flags=allow-oom
-- Give a lane a limit of its own, or the workers' again.
-- ARGV[2]  queue
-- ARGV[3]  how many may be in flight, or '' for the default

local hash = P .. 'h:' .. ARGV[2]
head(kind_of(ARGV[2]))
call('HDEL', hash, 'full') -- the next claim finds out again
call('ZREM', P .. 'waits:' .. kind_of(ARGV[2]), ARGV[2])
if ARGV[3] == '' then
  call('HDEL', hash, 'limit')
else
  call('HSET', hash, 'limit', ARGV[3])
end
look(ARGV[2])
