#!lua flags=allow-oom
-- Lease due tasks, fair over their lanes.
-- ARGV[2..6] retention, see trim
-- ARGV[7]  how many at most, [8] free slots of the worker, [9] lease, [10] limit of a lane
-- ARGV[11] random number in [0, 1), [12] random text for the token, [13] slots of the worker in all
-- ARGV[14...] kinds that the worker serves
-- Result: {now, when to claim again or '', 1 if due tasks were left because of the limits,
--   {ids without a record, dropped}, {ages that a maximum cut off},
--   {for each task: {id, queue, g, b, s, l}}}; the token is <random text>.<now>

local MAX_VISITS = 256
local left, free, limit = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[7])

local function count(index, below)
  local n = 0
  for i = 14, #ARGV do
    n = n + call('ZCOUNT', P .. index .. ARGV[i], '-inf', below)
  end
  return n
end

-- At most `most` queues of all kinds with a score up to `below`, the lowest first.
local function line(index, below, most)
  local found = {}
  for i = 14, #ARGV do
    local key = P .. index .. ARGV[i]
    local rows = call('ZRANGE', key, '-inf', below, 'BYSCORE', 'LIMIT', 0, most, 'WITHSCORES')
    for j = 1, #rows, 2 do
      found[#found + 1] = { queue = rows[j], at = tonumber(rows[j + 1]) }
    end
  end
  if #ARGV > 14 then
    table.sort(found, function(one, other) return one.at < other.at end)
  end
  return found
end

-- Lanes to visit: those that are due, and those that wait for no more slots than are free.
local FREE = ARGV[8]
local due, due_urgent = count('lanes:', NOW) + count('waits:', FREE), count('lanes!:', NOW)
local share = math.max(1, math.ceil(limit / math.max(due, 1)))
local budget = limit -- of priority tasks
if due > due_urgent then
  budget = math.min(limit, math.floor(0.75 * limit + random))
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

-- How many slots the lane may still get; domain/fairness.py has the rule and its reason.
local slots = tonumber(ARGV[13])

local function room(lane)
  local reach = free + lane.flight
  local most = math.max(1, math.floor(reach * reach / (slots + reach)))
  return math.max(0, math.min(free, most - lane.flight, lane.limit - lane.flight))
end

-- With how many free slots it may get one more.
local function needed(lane)
  local wanted = lane.flight + 1
  local reach = (wanted + math.sqrt(wanted * wanted + 4 * wanted * slots)) / 2
  return lane.flight == 0 and 1 or math.max(1, math.ceil(reach - 1e-9) - lane.flight)
end

local function took(lane, given)
  lane.flight, lane.taken = lane.flight + given, lane.taken + given
  left, free = left - given, free - given
  return given
end

-- Visit a lane for its priority tasks, and (`all`) first for expired leases and last for the rest.
local function visit(lane, allowed, all)
  local want = lane.held and 0 or math.min(left, allowed, room(lane))
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
  local short = waits and lane.flight > 0 and room(lane) == 0
  if short and lane.flight < lane.limit then
    call('ZADD', P .. 'waits:' .. kind_of(queue), needed(lane), queue)
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
      local could = room(lane) > 0
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
for i = 14, #ARGV do
  at = math.min(at, first_after('lanes:' .. ARGV[i], '(' .. NOW))
end
blocked = blocked or count('waits:', '+inf') > 0
local cut = trim(100)
return { NOW, at < INF and fmt(at) or '', blocked and 1 or 0, orphans, cut, tasks }
