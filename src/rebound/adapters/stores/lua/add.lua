#!lua
-- Store new tasks. Without allow-oom: a full Redis refuses them.
-- ARGV[2]  number of queues, then the queues
-- then for each task: id, body, "<digest> <nonce> <priority>", delay, progress ('': none),
--   number of its queue (negative: priority; 0: it starts dead)
-- Result: the time, then for each 1 created, 2 the same is known, 3 another is known under this id

local queues, first = {}, 3 + ARGV[2]
for i = 3, first - 1 do
  queues[i - 2] = ARGV[i]
end

local keys = {}
for i = first, #ARGV, 6 do
  keys[#keys + 1] = P .. 't:' .. ARGV[i]
end
local any_known = false
for i = 1, #keys, 4000 do
  any_known = any_known or call('EXISTS', unpack(keys, i, math.min(i + 3999, #keys))) > 0
end

-- The first writing of a task that does not begin on its main leg lacks the times.
local function stamped(progress, created, due)
  local at = string.format('%.6f', created / 1000000)
  local times = due and '"dead_at":' .. at .. ',"due_at":' .. string.format('%.6f', due / 1000000)
    or '"finished_at":' .. at
  return string.sub(progress, 1, -2) .. ',"updated_at":' .. at .. ',' .. times .. '}'
end

local known_now, lists, earliest, earliest_urgent = {}, {}, {}, {}
local open = added('by:open')

local function line_up(id, number, due, due_text)
  local q = math.abs(number)
  local least = number < 0 and earliest_urgent or earliest
  if due < (least[q] or INF) then
    least[q] = due
  end
  local list = lists[number] or added((number < 0 and 'd!:' or 'd:') .. queues[q])
  lists[number] = list
  list[#list + 1] = due_text
  list[#list + 1] = id
end

local function create(key, i, created)
  local id, number, progress = ARGV[i], tonumber(ARGV[i + 5]), ARGV[i + 4]
  local due, created_text = created + ARGV[i + 3], fmt(created)
  local due_text = fmt(due)
  local g = created_text .. ' ' .. ARGV[i + 2] .. ' ' .. due_text
  known_now[key] = g
  if progress == '' then
    call('HSET', key, 'b', ARGV[i + 1], 'g', g)
  else
    progress = stamped(progress, created, number ~= 0 and due)
    call('HSET', key, 'b', ARGV[i + 1], 'g', g, 's', progress)
  end
  if number == 0 then
    put('by:dead', created_text, id)
  else
    open[#open + 1] = created_text
    open[#open + 1] = id
    line_up(id, number, due, due_text)
  end
end

local function compared(known, meta)
  local digest, nonce = string.match(known, '^%S+ (%S+) (%S+)')
  local own_digest, own_nonce = string.match(meta, '^(%S+) (%S+)')
  return digest ~= own_digest and 3 or nonce == own_nonce and 1 or 2
end

local answers = { now }
for n, key in ipairs(keys) do
  local i = first + (n - 1) * 6
  local known = known_now[key] or any_known and call('HGET', key, 'g')
  if known then
    answers[n + 1] = compared(known, ARGV[i + 2])
    if answers[n + 1] < 3 then -- so that WAIT also tells whether the replicas have this one
      call('HSET', key, 'g', known)
    end
  else
    answers[n + 1] = 1
    create(key, i, now + n - 1)
  end
end
flush()

-- Lower when the lane is worth looking at; but for one that is held or full, in vain.
for q, queue in ipairs(queues) do
  local urgent = earliest_urgent[q]
  local at = math.min(earliest[q] or INF, urgent or INF)
  if at < INF then
    local kind, state = kind_of(queue), call('HMGET', P .. 'h:' .. queue, 'until', 'full')
    local held = tonumber(state[1])
    held = held and held > now and held
    local shut = held or state[2] and INF
    local before = head(kind)
    local how = shut and 'NX' or 'LT'
    local changed = call('ZADD', P .. 'lanes:' .. kind, how, 'CH', fmt(shut or at), queue)
    if urgent then
      call('ZADD', P .. 'lanes!:' .. kind, how, fmt(shut or urgent), queue)
    end
    if changed == 1 and not shut and at < before then
      wake(kind)
    end
  end
end
return answers
