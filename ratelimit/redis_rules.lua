-- The rules of the strategies (strategy.h) over states that Redis keeps; stands before redis_hit.lua and
-- redis_settle.lua. All numbers are whole and below 2^53, which doubles hold exactly; times are microseconds.
--
-- fixed_window (0) and sliding_window_counter (2) are one string of five doubles: last, offset, start, count, previous.
--
-- moving_window (1) is one string, so that a hit touches a few bytes of it, whatever its length:
--
--   header (80 bytes): last, offset, count, head, n, oldest, newest, newest_cost, tail, till
--   blocks: [ sum | entry 0 | ... | entry 255 ] [ sum | entry 256 | ... ]     16 bytes each: time, cost
--
-- Entries head to n - 1 count; the first and the last of them have a cost. A block's sum is written when the next block
-- begins; until then it is `tail`. `oldest` and `newest` are times; `till` is the state time up to which the key lives.
--
-- Redis runs all of this anew for each request, and what costs most is to make functions, by the locals that they
-- capture. So they use globals and plain numbers, and what few requests need is made when one does (log_rules).

-- Only tests give the time.
local now, slack_ms = tonumber(ARGV[2]), 60000
if not now then
    local time = redis.call('TIME')
    now, slack_ms = time[1] * 1000000 + time[2], 2000
end

-- Time and cost of a log's entry; reads `ahead` of them at once.
local function entry(s, i, ahead)
    local at = 96 + (i + math.floor(i / 256)) * 16
    local from = at - s.base
    if from < 0 or from + 16 > #s.text then
        s.text, s.base, from = redis.call('GETRANGE', s.key, at, at + ahead * 16 - 1), at, 0
    end
    return struct.unpack('<dd', s.text, from + 1)
end

-- Drops from the head what is no later than `edge` or has no cost; something is and has.
local function trim_head(entry, s, edge)
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

local function header(s)
    return struct.pack('<dddddddddd', s.t, s.offset, s.count, s.head, s.n, s.oldest, s.newest, s.newest_cost, s.tail,
        s.till)
end

-- How long a log is kept, in milliseconds: longer than it needs to be, so that not every hit has to say so.
local function log_life(s)
    local life = s.window + math.min(math.floor(s.window / 8), 3600000000)
    s.till = s.t + life
    return math.ceil(life / 1000) + s.slack_ms
end

-- The rest of what is done to logs, as functions of a table.
local function log_rules(entry, trim_head, header, log_life)
    local log = {}

    function log.put(s, at, bytes)
        redis.call('SETRANGE', s.key, at, bytes)
        s.text, s.base = '', 0
    end

    function log.block_sum(s, block)
        local at = 88 + block * 4112
        return (struct.unpack('<d', redis.call('GETRANGE', s.key, at, at + 7), 1))
    end

    function log.put_sum(s, block, sum)
        log.put(s, 80 + block * 4112, struct.pack('<dd', 0, sum))
    end

    -- Writes a log from its start.
    function log.replace(s, blocks)
        local life = log_life(s)
        redis.call('SET', s.key, header(s) .. blocks, 'PX', life)
        s.text, s.base = '', 0
    end

    -- Writes the log anew, without what has expired or has no cost.
    function log.rebuild(s)
        local parts, count, sum, at, cost = {('\0'):rep(16)}, 0, 0
        for i = s.head, s.n - 1 do
            at, cost = entry(s, i, 256)
            if cost ~= 0 then
                if count ~= 0 and count % 256 == 0 then
                    parts[#parts - 256] = struct.pack('<dd', 0, sum)
                    parts[#parts + 1] = ('\0'):rep(16)
                    sum = 0
                end
                parts[#parts + 1] = struct.pack('<dd', at, cost)
                count, sum = count + 1, sum + cost
            end
        end
        s.head, s.n, s.tail = 0, count, sum
        log.replace(s, table.concat(parts))
    end

    -- Makes room: dead entries go when there are as many as live ones, which makes the copying cheap in the long run.
    function log.compact(s)
        local dead, live = s.head, s.n - s.head
        if live >= 16384 or (s.n <= 256 and dead >= 16 and dead >= live) then
            log.rebuild(s)
        elseif dead >= 256 and dead >= live then
            local blocks = math.floor(dead / 256)
            local rest = redis.call('GETRANGE', s.key, 80 + blocks * 4112, -1)
            s.head, s.n = s.head - blocks * 256, s.n - blocks * 256
            log.replace(s, rest)
        end
    end

    -- The last entry has lost its cost.
    function log.trim_tail(s)
        local at, cost
        repeat
            s.n = s.n - 1
            if s.n == s.head then
                s.newest_cost = 0
                return
            end
            if s.n % 256 == 0 then
                s.tail = log.block_sum(s, s.n / 256 - 1)
            end
            at, cost = entry(s, s.n - 1, 1)
        until cost ~= 0
        s.newest, s.newest_cost = at, cost
    end

    -- The oldest entry that is not before `ticket`; n if there is none.
    function log.find(s, ticket)
        local low, high = s.head, s.n
        if high > low and s.newest == ticket then
            low = high - 1
        end
        while low < high do
            local middle = math.floor((low + high) / 2)
            if entry(s, middle, 1) < ticket then
                low = middle + 1
            else
                high = middle
            end
        end
        return low
    end

    function log.adjust(s, ticket, delta)
        local i = s.t - ticket >= s.window and s.n or log.find(s, ticket)
        if i == s.n then
            return
        end
        local at, cost = entry(s, i, 1)
        local others = s.count - cost
        local settled = math.max(0, math.min(cost + delta, 4e15 - others))
        local last, block = i == s.n - 1, math.floor(i / 256)
        s.count = others + settled
        log.put(s, 96 + (i + block) * 16, struct.pack('<dd', at, settled))
        if block == math.floor((s.n - 1) / 256) then
            s.tail = s.tail + settled - cost
        else
            log.put_sum(s, block, log.block_sum(s, block) + settled - cost)
        end
        if last then
            s.newest_cost = settled
        end
        if settled == 0 and last then
            log.trim_tail(s)
        end
        if settled == 0 and i == s.head and s.n ~= s.head then
            trim_head(entry, s, s.t - s.window)
        end
    end

    -- The state time at which no more than `most` is used.
    function log.fits_at(s, most)
        local count, i, at, cost = s.count, s.head
        if count <= most then
            return s.t
        elseif most == 0 then
            return s.newest + s.window
        end
        while count > most do
            local sum = i % 256 == 0 and i + 256 < s.n and log.block_sum(s, i / 256)
            if sum and count - sum > most then
                count, i = count - sum, i + 256
            else
                at, cost = entry(s, i, 64)
                count, i = count - cost, i + 1
            end
        end
        return at + s.window
    end

    return log
end

-- Reads a log's header; what is not ours counts as nothing.
local function load_log(s)
    local text = redis.call('GETRANGE', s.key, '0', '1103')
    if #text >= 80 then
        local last, offset, count, head, n, oldest, newest, newest_cost, tail, till = struct.unpack('<dddddddddd', text, 1)
        if count >= 0 and count < 2 ^ 53 and head >= 0 and head <= n and n < 2 ^ 32 and head % 1 == 0 and n % 1 == 0
            and count % 1 == 0 and last >= 0 and last < 2 ^ 53 and offset >= 0 and offset < 2 ^ 53 then
            s.fresh, s.text, s.count, s.head, s.n, s.oldest = false, text, count, head, n, oldest
            s.newest, s.newest_cost, s.tail, s.till = newest, newest_cost, tail, till
            return last, offset
        end
    end
    return 0, 0
end

-- The state of a key as it is now: what has passed is dropped.
local function load(entry, trim_head, load_log, key, kind, amount, window, now, slack_ms)
    local s, last, offset = nil, 0, 0
    if kind == 1 then
        s = {key = key, kind = 1, amount = amount, window = window, count = 0, previous = 0, fresh = true, t = 0,
            offset = 0, pending = 0, slack_ms = slack_ms, text = '', base = 0, head = 0, n = 0, oldest = 0, newest = 0,
            newest_cost = 0, tail = 0, till = 0, clean = false}
        last, offset = load_log(s)
    else
        s = {key = key, kind = kind, amount = amount, window = window, count = 0, previous = 0, fresh = true, t = 0,
            offset = 0, pending = 0, slack_ms = slack_ms, start = 0, moved = false}
        local text = redis.call('GET', key)
        if text and #text == 40 then
            local a, b, start, count, previous = struct.unpack('<ddddd', text, 1)
            if count >= 0 and count < 2 ^ 53 and count % 1 == 0 and previous >= 0 and previous < 2 ^ 53
                and previous % 1 == 0 and a >= 0 and a < 2 ^ 53 and b >= 0 and b < 2 ^ 53 and start >= 0 and start < 2 ^ 53
                and (kind == 2 or previous == 0) then
                last, offset, s.start, s.count, s.previous, s.fresh = a, b, start, count, previous, false
            end
        end
    end
    local t = now + offset
    if t < last then
        if last - t > 1000000 then
            offset = offset + (last - t)
        end
        t = last
    end
    s.t, s.offset = t, offset
    if kind == 1 then
        if s.n ~= s.head and s.oldest <= t - window then
            if s.newest <= t - window then
                s.head, s.count = s.n, 0
            else
                trim_head(entry, s, t - window)
            end
        end
    elseif kind == 0 then
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
local function save(header, log_life, s)
    if s.kind == 1 then
        if s.clean or (s.fresh and s.n == 0) then
            return header(s)
        end
        if s.t + s.window > s.till then
            redis.call('PEXPIRE', s.key, log_life(s))
        end
        local text = header(s)
        redis.call('SETRANGE', s.key, '0', text)
        return text
    end
    local text = struct.pack('<ddddd', s.t, s.offset, s.start, s.count, s.previous)
    if s.moved then
        local life = s.start + (s.kind == 2 and 2 or 1) * s.window - s.t
        redis.call('SET', s.key, text, 'PX', math.ceil(life / 1000) + s.slack_ms)
    elseif not s.fresh then
        redis.call('SETRANGE', s.key, '0', text)
    end
    return text
end

-- Adds `delta` to what the hit of this ticket consumed. `log`: log_rules() for a log.
local function adjust(log, s, ticket, delta)
    if s.kind == 1 then
        log.adjust(s, ticket, delta)
    elseif ticket >= s.start and ticket - s.start < s.window then
        if s.count ~= 0 then
            s.count = math.max(0, math.min(s.count + delta, 4e15))
        end
    elseif s.kind == 2 and ticket < s.start and s.start - ticket <= s.window and s.previous ~= 0 then
        s.previous = math.max(0, math.min(s.previous + delta, 4e15))
    end
end
