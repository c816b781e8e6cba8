-- Shared by every script: put behind the first line of each, and behind record.lua.
--
--   lanes:<kind>    zset  queue -> when it is worth looking at; a queue is <kind>|<lane>
--   lanes!:<kind>   zset  the same, of the queues with priority tasks
--   d:<queue>       zset  id -> when it is due             d!:<queue>  priority tasks
--   x:<queue>       zset  id -> end of its lease           in flight: those with an end to come
--   h:<queue>       hash  until: end of a hold, limit: its own, full: how many were in
--                         flight when it could have no more
--   t:<id>          string or hash: one task, see record.lua
--   by:<state>      zset  id -> creation, for listing: open (scheduled and delivering),
--                         delivering, succeeded, dead, cancelled
--   end:<state>     zset  id -> when it ended, for what is forgotten some day: succeeded, stub,
--                         cancelled, dead (with a delivered dead letter)
--   waits:<kind>    zset  queue -> how many free slots it takes to get one more, of lanes with due
--                         tasks that got none: a claim with as many free looks at it again
--   wake:<kind>     channel: something is due earlier than the workers know
--
-- KEYS[1]  prefix of every key, {<namespace>:0}: , so that a script touches one slot only
-- ARGV[1]  microseconds that tests add to the clock
-- Times are whole microseconds since the epoch: a score holds those exactly until the year 2255,
-- and Redis compares whole numbers in small sets several times faster than fractions.

local INF = math.huge
local P = KEYS[1]
local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2] + ARGV[1]

local function fmt(at)
  return string.format('%.0f', at)
end

local NOW = fmt(now)

local function kind_of(queue)
  return string.match(queue, '^[^|]*')
end

-- Changes of sets are gathered and written with one command a set: drops first, then puts. These
-- give the list to append to: ids, or scores each followed by its id.

local drops, puts = {}, {}

local function list_in(lists, key)
  local list = lists[key]
  if not list then
    list = {}
    lists[key] = list
  end
  return list
end

local function dropped(key)
  return list_in(drops, key)
end

local function added(key)
  return list_in(puts, key)
end

local function drop(key, id)
  local list = list_in(drops, key)
  list[#list + 1] = id
end

local function put(key, score, id)
  local list = list_in(puts, key)
  local n = #list
  list[n + 1], list[n + 2] = score, id
end

local function bulk(command, key, list)
  for i = 1, #list, 4000 do -- unpack takes fewer than 8000
    call(command, key, unpack(list, i, math.min(i + 3999, #list)))
  end
end

local function flush()
  for key, list in pairs(drops) do
    bulk('ZREM', P .. key, list)
  end
  for key, list in pairs(puts) do
    bulk('ZADD', P .. key, list)
  end
  drops, puts = {}, {}
end

-- Lanes

local function head_of(key)
  return tonumber(call('ZRANGE', P .. key, 0, 0, 'WITHSCORES')[2]) or INF
end

local function first_after(key, after)
  local first = call('ZRANGE', P .. key, after, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
  return tonumber(first[2]) or INF
end

-- When the workers of `kind` look again of their own accord, as it was before this call wrote.
local heads, woken = {}, {}

local function head(kind)
  if not heads[kind] then
    heads[kind] = head_of('lanes:' .. kind)
  end
  return heads[kind]
end

local function wake(kind)
  if not woken[kind] then
    woken[kind] = true
    call('PUBLISH', P .. 'wake:' .. kind, '')
  end
end

-- Does any lane of this kind have priority work? Every lane with a `d!` is in `lanes!`.
local urgent_kinds = {}

local function has_urgent(kind)
  if urgent_kinds[kind] == nil then
    urgent_kinds[kind] = call('EXISTS', P .. 'lanes!:' .. kind) == 1
  end
  return urgent_kinds[kind]
end

-- Until when a lane hands out nothing, or nil: the end of its hold, or while it is full the end
-- of its first lease. The second result is true where it was full and has a place free now.
local function shut_until(queue)
  local hash, leases = P .. 'h:' .. queue, 'x:' .. queue
  local state = call('HMGET', hash, 'until', 'full')
  local held = tonumber(state[1])
  if held and held > now then
    return held, false
  elseif held then
    call('HDEL', hash, 'until')
  end
  if not state[2] then
    return nil, false
  end
  if call('ZCOUNT', P .. leases, '(' .. NOW, '+inf') < tonumber(state[2]) then
    call('HDEL', hash, 'full')
    call('ZREM', P .. 'waits:' .. kind_of(queue), queue)
    return nil, true
  end
  return first_after(leases, '(' .. NOW), false
end

-- Write when a lane is worth looking at: the only writer of `lanes` and `lanes!`, but that `add`
-- lowers them. Shut: when that ends; else when something falls `due`, but never earlier than now,
-- or a few lanes with old backlog would starve the others; `urgent` is the same for its priority
-- tasks. With `keep` (all but claim) a lane that waits for its turn and stays due keeps its place
-- in the line, and workers are woken for one worth looking at earlier than they know.
-- Returns when that is.
local function index(queue, shut, due, urgent, keep, freed)
  local kind = kind_of(queue)
  local key, at = P .. 'lanes:' .. kind, shut or math.max(due, now)
  if due == INF and not shut then
    call('ZREM', key, queue)
  else
    local was = keep and tonumber(call('ZSCORE', key, queue)) or nil
    if was and was <= now and at <= now then
      at = was
    end
    if at ~= was then
      call('ZADD', key, at == now and NOW or fmt(at), queue)
    end
    if keep and at < (was or INF) and (at < head(kind) or freed) then
      wake(kind)
    end
  end
  if urgent < INF then
    call('ZADD', P .. 'lanes!:' .. kind, fmt(shut or math.max(urgent, at)), queue)
  elseif has_urgent(kind) then
    call('ZREM', P .. 'lanes!:' .. kind, queue)
  end
  return at
end

-- The lane has changed: see when it is worth looking at. Call head(kind) before the first change.
local function look(queue)
  local shut, freed = shut_until(queue)
  local urgent = has_urgent(kind_of(queue)) and head_of('d!:' .. queue) or INF
  local due = math.min(head_of('d:' .. queue), urgent, head_of('x:' .. queue))
  index(queue, shut, due, urgent, true, freed)
end

-- Put a task where it belongs as it now is: `at` is when it is due, or when it ended. `delivered`
-- is dead with a delivered dead letter, which alone of the dead is forgotten some day.
local function place(id, created, state, queue, priority, at)
  if state == 'scheduled' then
    if priority then
      urgent_kinds[kind_of(queue)] = true
    end
    put((priority and 'd!:' or 'd:') .. queue, at, id)
    put('by:open', created, id)
  elseif state == 'succeeded' or state == 'cancelled' then
    put('by:' .. state, created, id)
    put('end:' .. state, at, id)
  else
    put('by:dead', created, id)
    if state == 'delivered' then
      put('end:dead', at, id)
    end
  end
end

-- Retention

-- Ids and times of those in end:<state> that ended more than `age` ago or are more than `most`,
-- oldest first, at most `budget` of them; and how old the newest is that `most` cut off, or ''.
local function overdue(state, age, most, budget)
  local key = P .. 'end:' .. state
  local old = call('ZCOUNT', key, '-inf', fmt(now - age))
  local count = math.min(math.max(old, call('ZCARD', key) - most), budget)
  if count <= 0 then
    return {}, ''
  end
  local found = call('ZRANGE', key, 0, count - 1, 'WITHSCORES')
  return found, count > old and fmt(now - found[#found]) or ''
end

local function forget(state, found)
  for i = 1, #found, 2 do
    call('UNLINK', P .. 't:' .. found[i])
    drop('end:' .. state, found[i])
    if state ~= 'stub' then
      drop('by:' .. state, found[i])
    end
  end
end

-- Leave of a succeeded task what answers a repeated create, small enough for a listpack.
local function shrink(id, ended)
  local key = P .. 't:' .. id
  local kept = call('HMGET', key, 'g', 'k0')
  call('UNLINK', key)
  if kept[1] then
    local g = #kept[1] > HEADER and string.match(kept[1], '^%S+ %S+ %S+') or kept[1]
    call('HSET', key, 'g', g, 'f', ended, 'k0', kept[2] or '')
    put('end:stub', ended, id)
  end
  drop('end:succeeded', id)
  drop('by:succeeded', id)
end

-- Forget what ended long enough ago, at most `budget` tasks of each state.
-- ARGV[2] to [6]: how long succeeded tasks, their stubs, and dead and cancelled ones stay, in microseconds
-- from their end; how many succeeded tasks, and how many stubs.
-- Returns how old the newest is that a maximum cut off: of succeeded tasks, of stubs.
local function trim(budget)
  local whole, stub, dead = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
  local found, cut_whole = overdue('succeeded', whole, tonumber(ARGV[5]), budget)
  if stub <= whole then
    forget('succeeded', found)
  else
    for i = 1, #found, 2 do
      shrink(found[i], found[i + 1])
    end
  end
  flush()
  local stubs, cut_stubs = overdue('stub', stub, tonumber(ARGV[6]), budget)
  forget('stub', stubs)
  forget('dead', (overdue('dead', dead, INF, budget)))
  forget('cancelled', (overdue('cancelled', dead, INF, budget)))
  flush()
  return { cut_whole, cut_stubs }
end
