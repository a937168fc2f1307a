-- The rules of the strategies (strategy.h) over states that Redis keeps; stands before redis_hit.lua and
-- redis_settle.lua. All numbers are whole and below 2^53, which doubles hold exactly; times are microseconds.
--
-- fixed_window and sliding_window_counter are one string of five doubles: last, offset, start, count, previous.
--
-- moving_window is one string, so that a hit touches a few bytes of it, whatever its length:
--
--   header (80 bytes): last, offset, sum, head, n, oldest, newest, newest_cost, tail, until
--   blocks: [ sum | entry 0 | ... | entry 255 ] [ sum | entry 256 | ... ]     16 bytes each: time, cost
--
-- Entries head to n - 1 count; the first and the last of them have a cost. A block's sum is written when the next block
-- begins; until then it is `tail`. `oldest` and `newest` are times; `until` is the state time up to which the key lives.

local call, write, read = redis.call, struct.pack, struct.unpack
local floor, ceil, fmod, min, max = math.floor, math.ceil, math.fmod, math.min, math.max
local EXACT, SKEW, COUNT_MAX = 2 ^ 53, 1000000, 4e15
local MOVING, SLIDING, PLACE = 1, 2, 3
local HEADER, BLOCK, LOG_EXACT, LOG_MAX = 80, 256, 16000, 16384
local NOTHING = ('\0'):rep(16)

-- Only tests give the time.
local now, slack_ms = tonumber(ARGV[2]), 60000
if not now then
    local time = call('TIME')
    now, slack_ms = time[1] * 1000000 + time[2], 2000
end

-- ---- the log ----

local function place(i)
    return HEADER + (i + floor(i / BLOCK) + 1) * 16
end

-- Time and cost of an entry; reads `ahead` of them at once.
local function entry(s, i, ahead)
    local at = place(i)
    local from = at - s.base
    if from < 0 or from + 16 > #s.text then
        s.text, s.base, from = call('GETRANGE', s.key, at, at + ahead * 16 - 1), at, 0
    end
    return read('<dd', s.text, from + 1)
end

local function put(s, at, bytes)
    call('SETRANGE', s.key, at, bytes)
    s.text, s.base = '', 0
end

local function block_sum(s, block)
    local at = HEADER + block * (BLOCK + 1) * 16
    return (read('<d', call('GETRANGE', s.key, at + 8, at + 15), 1))
end

local function header(s)
    return write('<dddddddddd', s.t, s.offset, s.count, s.head, s.n, s.oldest, s.newest, s.newest_cost, s.tail,
        s.till)
end

local function life_ms(us)
    return ceil(us / 1000) + slack_ms
end

-- How long a log is kept: longer than it needs to be, so that not every hit has to say so.
local function log_life(s)
    local life = s.window + min(floor(s.window / 8), 3600000000)
    s.till = s.t + life
    return life_ms(life)
end

-- Writes a log from its start.
local function replace(s, blocks)
    local life = log_life(s)
    call('SET', s.key, header(s) .. blocks, 'PX', life)
    s.text, s.base = '', 0
end

-- Drops what has no cost, at the head (as expire needs it) or at the tail.
local function trim_tail(s)
    local at, cost
    repeat
        s.n = s.n - 1
        if s.n == s.head then
            s.newest_cost = 0
            return
        end
        if s.n % BLOCK == 0 then
            s.tail = block_sum(s, s.n / BLOCK - 1)
        end
        at, cost = entry(s, s.n - 1, 1)
    until cost ~= 0
    s.newest, s.newest_cost = at, cost
end

local function trim_head(s, edge)
    local i, count, at, cost = s.head, s.count
    while true do
        at, cost = entry(s, i, 64)
        if at > edge and cost ~= 0 then
            break
        end
        i, count = i + 1, count - cost
    end
    s.head, s.count, s.oldest = i, count, at
end

local function expire(s)
    local edge = s.t - s.window
    if s.n == s.head or s.oldest > edge then
        return
    end
    if s.newest <= edge then
        s.head, s.count = s.n, 0
    else
        trim_head(s, edge)
    end
end

-- Writes the log anew, without what has expired or has no cost.
local function rebuild(s)
    local parts, count, sum, at, cost = {NOTHING}, 0, 0
    for i = s.head, s.n - 1 do
        at, cost = entry(s, i, 256)
        if cost ~= 0 then
            if count ~= 0 and count % BLOCK == 0 then
                parts[#parts - BLOCK] = write('<dd', 0, sum)
                parts[#parts + 1] = NOTHING
                sum = 0
            end
            parts[#parts + 1] = write('<dd', at, cost)
            count, sum = count + 1, sum + cost
        end
    end
    s.head, s.n, s.tail = 0, count, sum
    replace(s, table.concat(parts))
end

-- Makes room: dead entries go when there are as many as live ones, which makes the copying cheap in the long run.
local function compact(s)
    local dead, live = s.head, s.n - s.head
    if live >= LOG_MAX or (s.n <= BLOCK and dead >= 16 and dead >= live) then
        rebuild(s)
    elseif dead >= BLOCK and dead >= live then
        local blocks = floor(dead / BLOCK)
        local rest = call('GETRANGE', s.key, HEADER + blocks * (BLOCK + 1) * 16, -1)
        s.head, s.n = s.head - blocks * BLOCK, s.n - blocks * BLOCK
        replace(s, rest)
    end
end

local function push(s, cost)
    local at = s.t
    s.clean = false
    if s.amount > LOG_EXACT then
        local step = ceil(s.window / LOG_EXACT)
        local past = fmod(at, step)
        if past ~= 0 then
            at = at + step - past
        end
    end
    cost = min(cost, COUNT_MAX - s.count)
    s.count = s.count + cost
    if s.n == s.head then
        s.head, s.n, s.oldest, s.newest, s.newest_cost, s.tail = 0, 1, at, at, cost, cost
        replace(s, NOTHING .. write('<dd', at, cost))
        s.clean = true
        return at
    end
    if s.newest >= at then
        s.newest_cost, s.tail = s.newest_cost + cost, s.tail + cost
        put(s, place(s.n - 1), write('<dd', s.newest, s.newest_cost))
        return at
    end
    if s.head >= 16 or s.n >= LOG_MAX then
        compact(s)
    end
    if s.n % BLOCK == 0 then
        put(s, HEADER + (s.n / BLOCK - 1) * (BLOCK + 1) * 16, write('<dd', 0, s.tail))
        s.tail = 0
    end
    s.newest, s.newest_cost, s.tail = at, cost, s.tail + cost
    put(s, place(s.n), write('<dd', at, cost))
    s.n = s.n + 1
    return at
end

-- The oldest entry that is not before `ticket`; n if there is none.
local function find(s, ticket)
    local low, high = s.head, s.n
    if high > low and s.newest == ticket then
        low = high - 1
    end
    while low < high do
        local middle = floor((low + high) / 2)
        if entry(s, middle, 1) < ticket then
            low = middle + 1
        else
            high = middle
        end
    end
    return low
end

-- ---- a state ----

local function load_log(s)
    local text = call('GETRANGE', s.key, '0', '1103'), nil
    if #text >= HEADER then
        local last, offset, count, head, n, oldest, newest, newest_cost, tail, till = read('<dddddddddd', text, 1)
        -- What is not ours counts as nothing.
        if count >= 0 and count < EXACT and head >= 0 and head <= n and n < EXACT and head % 1 == 0 and n % 1 == 0
            and last >= 0 and last < EXACT and offset >= 0 and offset < EXACT then
            s.fresh, s.text, s.count, s.head, s.n, s.oldest = false, text, count, head, n, oldest
            s.newest, s.newest_cost, s.tail, s.till = newest, newest_cost, tail, till
            return last, offset
        end
    end
    return 0, 0
end

-- The state of a key as it is now: what has passed is dropped.
local function load(key, strategy, amount, window)
    local s = {key = key, strategy = strategy, amount = amount, window = window, count = 0, previous = 0, start = 0,
        fresh = true, moved = false, t = 0, offset = 0, pending = 0}
    local last, offset = 0, 0
    if strategy == MOVING then
        s.text, s.base, s.head, s.n, s.oldest, s.newest, s.newest_cost, s.tail, s.till = '', 0, 0, 0, 0, 0, 0, 0, 0
        last, offset = load_log(s)
    else
        local text = call('GET', key)
        if text and #text == 40 then
            local a, b, start, count, previous = read('<ddddd', text, 1)
            if count >= 0 and count < EXACT and previous >= 0 and previous < EXACT and a >= 0 and a < EXACT and b >= 0
                and b < EXACT and start >= 0 and start < EXACT then
                last, offset, s.start, s.count, s.previous, s.fresh = a, b, start, count, previous, false
            end
        end
    end
    local t = now + offset
    if t < last then
        if last - t > SKEW then
            offset = offset + (last - t)
        end
        t = last
    end
    s.t, s.offset = t, offset
    if strategy == MOVING then
        expire(s)
    elseif strategy ~= SLIDING then
        if t - s.start >= window then
            s.count = 0
        end
    elseif t - s.start >= 2 * window then
        s.count, s.previous = 0, 0
    elseif t - s.start >= window then
        s.previous, s.count, s.start, s.moved = s.count, 0, s.start + window, true
    end
    return s
end

-- Keeps it, but for a key that has consumed nothing. Returns it as it is kept.
local function save(s)
    if s.strategy == MOVING then
        if s.clean or (s.fresh and s.n == 0) then
            return header(s)
        end
        if s.t + s.window > s.till then
            call('PEXPIRE', s.key, log_life(s))
        end
        local text = header(s)
        call('SETRANGE', s.key, '0', text)
        return text
    end
    local text = write('<ddddd', s.t, s.offset, s.start, s.count, s.previous)
    if s.moved then
        local life = s.start + (s.strategy == SLIDING and 2 or 1) * s.window - s.t
        call('SET', s.key, text, 'PX', life_ms(life))
    elseif not s.fresh then
        call('SETRANGE', s.key, '0', text)
    end
    return text
end

-- Adds `delta` to what the hit of this ticket consumed.
local function adjust(s, ticket, delta)
    if s.strategy == MOVING then
        local i = s.t - ticket >= s.window and s.n or find(s, ticket)
        if i == s.n then
            return
        end
        local at, cost = entry(s, i, 1)
        local others = s.count - cost
        local settled = max(0, min(cost + delta, COUNT_MAX - others))
        s.count = others + settled
        put(s, place(i), write('<dd', at, settled))
        local block = floor(i / BLOCK)
        if block == floor((s.n - 1) / BLOCK) then
            s.tail = s.tail + settled - cost
        else
            put(s, HEADER + block * (BLOCK + 1) * 16, write('<dd', 0, block_sum(s, block) + settled - cost))
        end
        if i == s.n - 1 then
            s.newest_cost = settled
        end
        if settled == 0 and i == s.n - 1 then
            trim_tail(s)
        end
        if settled == 0 and i == s.head and s.n ~= s.head then
            trim_head(s, s.t - s.window)
        end
        return
    end
    if ticket >= s.start and ticket - s.start < s.window then
        if s.count ~= 0 then
            s.count = max(0, min(s.count + delta, COUNT_MAX))
        end
    elseif s.strategy == SLIDING and ticket < s.start and s.start - ticket <= s.window and s.previous ~= 0 then
        s.previous = max(0, min(s.previous + delta, COUNT_MAX))
    end
end
