#!lua
-- Store new tasks. Without allow-oom: a full Redis refuses them.
-- ARGV[2]  number of queues, then the queues
-- then     number of tasks that are hashes at once; of each its place, its body, progress or ''
-- then for each task: id, delay, number of its queue (negative: priority; 0: it starts dead),
--   its header from the priority on, see record.lua, and its body if it is none of those
-- Result: the time, then for each 1 created, 2 the same is known, 3 another is known under this id

local queues, count_at = {}, 3 + ARGV[2]
for i = 3, count_at - 1 do
  queues[i - 2] = ARGV[i]
end
local hashes, first = {}, count_at + 1 + 3 * ARGV[count_at]
for i = count_at + 1, first - 1, 3 do
  hashes[tonumber(ARGV[i])] = i
end

-- The first writing of a task that does not begin on its main leg lacks the times.
local function stamped(progress, created, due)
  local at = string.format('%.6f', created / 1000000)
  local times = due and '"dead_at":' .. at .. ',"due_at":' .. string.format('%.6f', due / 1000000)
    or '"finished_at":' .. at
  return string.sub(progress, 1, -2) .. ',"updated_at":' .. at .. ',' .. times .. '}'
end

-- Store what is a hash at once; its body is ARGV[i + 1]. Returns whether nothing stood there.
local function create_hash(key, header, i, at, due)
  if call('EXISTS', key) == 1 then
    return false
  end
  call('HSET', key, 'g', header, 'b', ARGV[i + 1])
  if ARGV[i + 2] ~= '' then
    call('HSET', key, 's', stamped(ARGV[i + 2], at, due))
  end
  return true
end

local function hex(bytes)
  return (string.gsub(bytes, '.', function(c) return string.format('%02x', string.byte(c)) end))
end

local function compared(g, own)
  if #g == HEADER then
    return string.sub(g, 18, 33) ~= string.sub(own, 2, 17) and 3
      or string.sub(g, 34) == string.sub(own, 18, 25) and 1 or 2
  end
  return string.match(g, '^%S+ (%S+)') == hex(string.sub(own, 2, 17)) and 2 or 3
end

-- What to answer where something stands there already.
local function found(key, own)
  local known, is_string = record(key)
  local g = known[1] or ''
  local answer = compared(g, own)
  if answer < 3 then -- so that WAIT also tells whether the replicas have this one
    if is_string then
      call('SETRANGE', key, 0, string.sub(g, 1, 1))
    else
      call('HSET', key, 'g', g)
    end
  end
  return answer
end

-- What is put in line in each queue, scores and ids as in added(), and its earliest score; by the
-- number as it was sent.
local lines, open = {}, added('by:open')

local function line_up(id, number, at, due)
  local line, n = lines[number], #open
  if not line then
    local numeral = tonumber(number)
    local queue = queues[math.abs(numeral)]
    line = { due, id, first = due, queue = queue, urgent = numeral < 0 }
    lines[number], puts[(numeral < 0 and 'd!:' or 'd:') .. queue] = line, line
  else
    local m = #line
    line[m + 1], line[m + 2] = due, id
    if due < line.first then
      line.first = due
    end
  end
  open[n + 1], open[n + 2] = at, id
end

local LATEST = 2 ^ 53 -- the year 2255: until then scores are exact
local answers = { now }
for i = first, #ARGV, 4 do
  local n = (i - first) / 4 + 1
  local id, number, own, at = ARGV[i], ARGV[i + 2], ARGV[i + 3], now + n - 1
  local key, due, dead = P .. 't:' .. id, math.min(at + ARGV[i + 1], LATEST), number == '0'
  local text, is_new = packed(at, due) .. own
  if hashes[n] then
    is_new = create_hash(key, text, hashes[n], at, not dead and due)
  else
    is_new = call('SETNX', key, text) == 1
  end
  if not is_new then
    answers[n + 1] = found(key, own)
  else
    answers[n + 1] = 1
    if dead then
      put('by:dead', at, id)
    else
      line_up(id, number, at, due)
    end
  end
end
flush()

-- Lower when the lanes are worth looking at; but for those that are held or full, in vain.

local holds, any_shut = {}, false
for _, line in pairs(lines) do
  holds[#holds + 1] = P .. 'h:' .. line.queue
end
for i = 1, #holds, 4000 do
  any_shut = any_shut or call('EXISTS', unpack(holds, i, math.min(i + 3999, #holds))) > 0
end

local function shut_of(queue)
  local state = call('HMGET', P .. 'h:' .. queue, 'until', 'full')
  local held = tonumber(state[1])
  return held and held > now and held or state[2] and INF
end

local least = {}
for _, line in pairs(lines) do
  local queue, kind = line.queue, kind_of(line.queue)
  local shut = any_shut and shut_of(queue)
  if shut then
    call('ZADD', P .. 'lanes:' .. kind, 'NX', fmt(shut), queue)
    if line.urgent then
      call('ZADD', P .. 'lanes!:' .. kind, 'NX', fmt(shut), queue)
    end
  else
    if line.first < head(kind) then -- then it is lowered, for the head is that of all its lanes
      wake(kind)
    end
    local list = list_in(least, 'lanes:' .. kind)
    list[#list + 1], list[#list + 2] = line.first, queue
    if line.urgent then
      list = list_in(least, 'lanes!:' .. kind)
      list[#list + 1], list[#list + 2] = line.first, queue
    end
  end
end
for key, list in pairs(least) do
  for i = 1, #list, 4000 do
    call('ZADD', P .. key, 'LT', unpack(list, i, math.min(i + 3999, #list)))
  end
end
return answers
