#!lua flags=allow-oom
-- Lease due tasks, fair over their lanes.
-- ARGV[2..6] retention, see trim
-- ARGV[7]  how many at most, [8] free slots of the worker, [9] lease, [10] limit of a lane
-- ARGV[11] random number in [0, 1), [12] random text for the token
-- ARGV[13...] kinds that the worker serves
-- Result: {now, when to claim again or '', 1 if due tasks were left because of the limits,
--   {ids without a record, dropped}, {ages that a maximum cut off},
--   {for each task: {id, queue, g, b, s, l}}}; the token is <random text>.<now>

local MAX_VISITS, MAX_BODIES, MAX_LOST, MAX_LOOKED_AT = 256, 8 * 1024 * 1024, 5, 1000

local left, free, lease = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local random, token, limit = tonumber(ARGV[11]), ARGV[12] .. '.' .. NOW, left
local ends = fmt(now + lease)
local tasks, orphans = {}, {}
local delivering = added('by:delivering')
local bytes, looked_at, stopped = 0, 0, false

local function count(index, below)
  local n = 0
  for i = 13, #ARGV do
    n = n + call('ZCOUNT', P .. index .. ARGV[i], '-inf', below)
  end
  return n
end

-- At most `most` queues of all kinds with a score up to `below`, the lowest first.
local function line(index, below, most)
  local found = {}
  for i = 13, #ARGV do
    local key = P .. index .. ARGV[i]
    local rows = call('ZRANGE', key, '-inf', below, 'BYSCORE', 'LIMIT', 0, most, 'WITHSCORES')
    for j = 1, #rows, 2 do
      found[#found + 1] = { queue = rows[j], at = tonumber(rows[j + 1]) }
    end
  end
  if #ARGV > 13 then
    table.sort(found, function(one, other) return one.at < other.at end)
  end
  return found
end

-- Lanes to visit: those that are due, and those that wait for slots and have fewer in flight than
-- there are free.
local FREE = '(' .. ARGV[8]
local due, due_urgent = count('lanes:', NOW) + count('waits:', FREE), count('lanes!:', NOW)
local share = math.max(1, math.ceil(limit / math.max(due, 1)))
local budget = limit -- of priority tasks
if due > due_urgent then
  budget = math.min(limit, math.floor(0.75 * limit + random))
end

-- Spreads the one random number of a claim over the tasks that it puts back.
local GOLDEN, pushed_back = 0.6180339887498949, 0

-- One lease was lost again. Returns the starts of those lost in a row; where it was not the first,
-- the task is put back for a while instead, so that one which kills workers parts from the others.
local function lost_again(lane, id, g, losses)
  local start = string.match(call('HGET', P .. 't:' .. id, 'k') or '', '%.(%d+)$') or NOW
  local starts = (losses and string.match(losses, '^%S+') .. ',' or '') .. start
  local _, count = string.gsub(starts, ',', ',')
  count = count + 1
  if count == 1 or count >= MAX_LOST then
    return starts
  end
  local chance = (random + pushed_back * GOLDEN) % 1
  pushed_back = pushed_back + 1
  local at, key = fmt(now + 2 ^ count * (0.5 + chance) * 1000000), P .. 't:' .. id
  call('HSET', key, 'l', starts .. ' ' .. at, 'k', '')
  lane.pushed = true
  drop('by:delivering', id)
  local priority = g and string.match(g, '^%S+ %S+ %S+ (%S+)') == '1'
  place(id, created_of(g), 'scheduled', lane.queue, priority, at)
  return nil
end

-- Lease one task. Returns 1, or 0 where there is nothing to lease under this id.
local function take_one(lane, id, expired)
  local key = P .. 't:' .. id
  local found = redis.pcall('HMGET', key, 'g', 'b', 's', 'l')
  if found.err or not (found[1] or found[2]) then
    orphans[#orphans + 1] = id
    drop('by:open', id)
    drop('by:delivering', id)
    return 0
  end
  local g, body, progress, losses = unpack(found)
  local size = #(body or '') + #(progress or '')
  if #tasks > 0 and bytes + size > MAX_BODIES then
    stopped = true
    return nil
  end
  if expired then
    losses = lost_again(lane, id, g, losses)
    if not losses then
      return 0
    end
    call('HSET', key, 'k', token, 'l', losses)
  else
    call('HSET', key, 'k', token)
  end
  bytes = bytes + size
  delivering[#delivering + 1] = created_of(g)
  delivering[#delivering + 1] = id
  tasks[#tasks + 1] = { id, lane.queue, g, body, progress, losses }
  return 1
end

local function may_take(given, want)
  return given < want and not stopped and looked_at < MAX_LOOKED_AT
end

-- Lease at most `want` tasks of a lane whose lease has expired. Returns how many.
local function take_expired(lane, want)
  local given = 0
  while may_take(given, want) do
    local asked = want - given
    local ids = call('ZRANGE', lane.leases, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, asked)
    local gone, leased = {}, {}
    for _, id in ipairs(ids) do
      local n = take_one(lane, id, true)
      if not n then
        break
      elseif n == 0 then
        gone[#gone + 1] = id
      else
        leased[#leased + 1] = ends
        leased[#leased + 1] = id
      end
      looked_at = looked_at + 1
    end
    bulk('ZREM', lane.leases, gone)
    bulk('ZADD', lane.leases, leased)
    given = given + #leased / 2
    if #ids < asked then
      break
    end
  end
  return given
end

-- Lease at most `want` of the first tasks in a set of the lane, those that are due. Returns how
-- many, and when the first of those left is due.
local function take_due(lane, set, want)
  local key, given, left_at = P .. set .. lane.queue, 0, nil
  while not left_at do
    local asked = want - given + 1
    local rows = call('ZRANGE', key, 0, asked - 1, 'WITHSCORES')
    local leased, n = {}, 0
    for i = 1, #rows, 2 do
      local at = tonumber(rows[i + 1])
      local taken = at <= now and may_take(given + #leased / 2, want)
        and take_one(lane, rows[i], false)
      if not taken then
        left_at = at
        break
      end
      n, looked_at = n + 1, looked_at + 1
      if taken == 1 then
        leased[#leased + 1] = ends
        leased[#leased + 1] = rows[i]
      end
    end
    if n > 0 then
      call('ZREMRANGEBYRANK', key, 0, n - 1)
      bulk('ZADD', lane.leases, leased)
    end
    given = given + #leased / 2
    if #rows / 2 < asked then
      left_at = left_at or INF
    end
  end
  return given, left_at
end

local lanes, visited = {}, {}

local function lane_of(queue)
  local lane = lanes[queue]
  if not lane then
    local state = call('HMGET', P .. 'h:' .. queue, 'until', 'limit', 'full')
    local held = tonumber(state[1])
    lane = { queue = queue, leases = P .. 'x:' .. queue, taken = 0, flight = 0 }
    lane.limit, lane.full = tonumber(state[2] or ARGV[10]), state[3]
    lane.held = held and held > now and held or nil
    if held and not lane.held then
      call('HDEL', P .. 'h:' .. queue, 'until')
    end
    lane.first_end = head_of('x:' .. queue)
    lane.expired = lane.first_end <= now
    if lane.first_end < INF then
      lane.flight = call('ZCOUNT', lane.leases, '(' .. NOW, '+inf')
    end
    lanes[queue], visited[#visited + 1] = lane, lane
  end
  return lane
end

-- How many slots the lane may still get: none while it has as many in flight as stay free. Lanes
-- that are still to come count as if they took as many, so that one claim gives no more away than
-- many small ones would.
local function room(lane, to_come)
  if lane.flight >= math.min(free, lane.limit) then
    return 0
  end
  local fair = math.max(1, math.floor((free - lane.flight) / (to_come + 2)))
  return math.min(lane.limit - lane.flight, fair)
end

local function took(lane, given)
  lane.flight, lane.taken = lane.flight + given, lane.taken + given
  left, free = left - given, free - given
  return given
end

-- Visit a lane for its priority tasks, and (`all`) first for expired leases and last for the rest.
local function visit(lane, allowed, all)
  local want = lane.held and 0 or math.min(left, allowed, room(lane, due - #visited))
  if want <= 0 then
    return
  end
  if all and lane.expired then
    want = want - took(lane, take_expired(lane, want))
  end
  if has_urgent(kind_of(lane.queue)) then
    local given
    given, lane.urgent_at = take_due(lane, 'd!:', math.min(want, budget))
    want, budget = want - took(lane, given), budget - given
    if want > 0 and lane.urgent_at <= now then
      lane.over_budget = true -- nothing goes ahead of its priority tasks
      return
    end
  end
  if all then
    local given
    given, lane.due_at = take_due(lane, 'd:', want)
    took(lane, given)
  end
end

local MOST = math.min(math.max(limit, 32), MAX_VISITS)

local function visit_urgent()
  local each = math.max(1, math.ceil(budget / due_urgent))
  for _, one in ipairs(line('lanes!:', NOW, MOST)) do
    if left <= 0 or budget <= 0 or stopped then
      break
    end
    visit(lane_of(one.queue), each, false)
  end
end

local function visit_line(index, below)
  for _, one in ipairs(line(index, below, MOST)) do
    if left <= 0 or stopped then
      break
    end
    local lane = lane_of(one.queue)
    visit(lane, share - lane.taken, true)
  end
end

local function visit_all()
  if due_urgent > 0 then
    visit_urgent()
  end
  visit_line('lanes:', NOW)
  visit_line('waits:', FREE)
  if #tasks == 0 then -- what the others may not have is left for priority tasks
    for _, lane in ipairs(visited) do
      budget = limit
      visit(lane, lane.over_budget and share or 0, false)
    end
  end
end

-- Write down when a visited lane is worth looking at. Returns whether something in it is due.
local function close(lane)
  local queue, hash = lane.queue, P .. 'h:' .. lane.queue
  local ending = lane.taken > 0 and math.min(lane.first_end, now + lease) or lane.first_end
  if lane.expired or lane.pushed then -- what was seen of its sets does not hold any more
    ending, lane.due_at, lane.urgent_at = head_of('x:' .. queue), nil, nil
  end
  local urgent = INF
  if has_urgent(kind_of(queue)) then
    urgent = lane.urgent_at or head_of('d!:' .. queue)
  end
  local due_at = math.min(lane.due_at or head_of('d:' .. queue), urgent, ending)
  local waits, shut = due_at <= now and not lane.held, lane.held
  local short = waits and lane.flight > 0 and lane.flight >= free
  if short and lane.flight < lane.limit then
    call('ZADD', P .. 'waits:' .. kind_of(queue), lane.flight, queue)
  elseif lane.full then
    call('ZREM', P .. 'waits:' .. kind_of(queue), queue)
  end
  if short or lane.flight >= lane.limit then
    call('HSET', hash, 'full', lane.flight)
    shut = shut or ending > now and ending or first_after('x:' .. queue, '(' .. NOW)
  elseif lane.full then
    call('HDEL', hash, 'full')
  end
  index(queue, shut, due_at, urgent)
  return waits
end

-- Returns whether another claim would be given more at once, and whether due tasks were left
-- because of the limits.
local function close_lanes()
  local more, blocked = stopped, left <= 0 and due > #visited
  for _, lane in ipairs(visited) do
    if close(lane) then
      local could = room(lane, 0) > 0
      more = more or could
      blocked = blocked or not could or left <= 0
    end
  end
  return more and #tasks > 0 or due > #visited, blocked
end

local more, blocked = false, false
if due > 0 then
  visit_all()
  flush()
  more, blocked = close_lanes()
end
local at = more and now or INF
for i = 13, #ARGV do
  at = math.min(at, first_after('lanes:' .. ARGV[i], '(' .. NOW))
end
blocked = blocked or count('waits:', '+inf') > 0
local cut = trim(100)
return { NOW, at < INF and fmt(at) or '', blocked and 1 or 0, orphans, cut, tasks }
