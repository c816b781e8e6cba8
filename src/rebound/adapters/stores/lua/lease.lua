-- What claim.lua does with one lane's tasks; put in front of it. It is the claim's ARGV:
-- ARGV[9]  lease, [11] random number in [0, 1), [12] random text for the token
-- Leaves in `tasks` what was leased: {id, queue, g, b, s, l}; in `orphans` ids without a record.

local MAX_BODIES, MAX_LOST, MAX_LOOKED_AT = 8 * 1024 * 1024, 5, 1000

local lease, random, token = tonumber(ARGV[9]), tonumber(ARGV[11]), ARGV[12] .. '.' .. NOW
local ends = fmt(now + lease)
local tasks, orphans = {}, {}
local delivering = added('by:delivering')
local bytes, looked_at, stopped = 0, 0, false

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
  place(id, created_of(g), 'scheduled', lane.queue, is_urgent(g), at)
  return nil
end

-- Lease one task. Returns 1, or 0 where there is nothing to lease under this id.
local function take_one(lane, id, expired)
  local key = P .. 't:' .. id
  local found, is_string = record(key, 's', 'l')
  if not (found[1] or found[2]) then
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
  if is_string then
    unfold(key, found, 'k', token)
  elseif expired then
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
  tasks[#tasks + 1] = { id, lane.queue, g, body, progress or false, losses or false }
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
