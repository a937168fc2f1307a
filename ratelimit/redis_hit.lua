-- Decides on all that applies to one request: places among a maximum of streams, and limits. All are taken, or none.
--
-- ARGV[1]: an id of 16 bytes; then for each item a byte and three doubles: kind (a strategy, or 3 for a place; 16 more
-- for a limit that reserves), amount, window, cost. Places come first.
-- KEYS: of each item its key and, if it reserves, that of its open reservations: a sorted set by the time at which they
-- lapse, of (id, the item's number, ticket, cost).
-- Answers with the time as a double and a byte: 1 if all was taken, 0 if not, 2 and more for the place that is not free.
-- In the former two cases the state of each limit follows as it stands then, as it is kept; what they mean to the client
-- is worked out from that. A log's has two doubles more, 0 if its header tells: the state times at which it fits, and at
-- which less is used.


-- What is used of a state. floor(previous * left / window) has to be exact, also if the product is not.
local function used(s)
    local a, b, c = s.previous, s.start + s.window - s.t, s.window
    local product = a * b
    if product < 2 ^ 53 then
        return (product - math.fmod(product, c)) / c + s.count
    end
    -- Long multiplication: by digits of `a` so small that no step reaches 2^53.
    local base, scale, quotient, rest = 2, 1, 0, 0
    while c * base * 2 <= 2 ^ 53 do
        base = base * 2
    end
    while scale * base <= a do
        scale = scale * base
    end
    while scale >= 1 do
        local digit, high = math.floor(a / scale), rest * base
        rest = math.fmod(high, c)
        local low = rest + digit * b
        quotient = quotient * base + (high - rest) / c
        rest = math.fmod(low, c)
        quotient = quotient + (low - rest) / c
        a, scale = a - digit * scale, scale / base
    end
    return quotient + s.count
end

local blob = ARGV[1]
local count, key, admitted, log, states = (#blob - 16) / 25, 1, true, nil, nil
local items, costs, opens = {}, {}, {}

for i = 1, count do
    local kind, amount, window, cost = struct.unpack('<Bddd', blob, i * 25 - 8)
    local name = KEYS[key]
    key = key + 1
    if kind == 3 then
        redis.call('ZREMRANGEBYSCORE', name, '-inf', now)
        if redis.call('ZCARD', name) >= amount then
            return struct.pack('<dB', now, i + 1)
        end
        items[i] = name
    else
        local s, open
        if kind >= 16 then
            kind, open, key = kind - 16, KEYS[key], key + 1
        end
        -- The same limit may stand there twice.
        if count ~= 1 then
            states = states or {}
            s = states[name]
        end
        if not s then
            s = load(entry, trim_head, load_log, name, kind, amount, window, now, slack_ms)
            if states then
                states[name] = s
            end
        end
        if open then
            -- What was reserved by those who are gone is given back.
            local gone = redis.call('ZRANGEBYSCORE', open, '-inf', now, 'LIMIT', '0', '100')
            for g = 1, #gone do
                if #gone[g] == 33 then
                    local ticket, reserved = struct.unpack('<dd', gone[g], 18)
                    log = log or kind == 1 and log_rules(entry, trim_head, header, log_life)
                    adjust(log, s, ticket, -reserved)
                end
                redis.call('ZREM', open, gone[g])
            end
        end
        local total = cost + s.pending
        s.pending = total
        items[i], costs[i], opens[i] = s, cost, open
        if amount == 0 or total > amount or (s.previous ~= 0 and used(s) or s.count) > amount - total then
            admitted = false
        end
    end
end

if admitted then
    for i = 1, count do
        local s, cost, ticket = items[i], costs[i], nil
        if not cost then
            redis.call('ZADD', s, now + 14000000, blob:sub(1, 16) .. string.char(i - 1))
            redis.call('PEXPIRE', s, '60000')
        elseif cost ~= 0 then
            ticket = s.t
            if s.kind ~= 1 then
                if s.count == 0 and s.previous == 0 then
                    s.start, s.moved = s.t, true
                end
                s.count = math.min(s.count + cost, 4e15)
            else
                if s.amount > 16000 then
                    local step = math.ceil(s.window / 16000)
                    local past = math.fmod(ticket, step)
                    ticket = past == 0 and ticket or ticket + step - past
                end
                local added = math.min(cost, 4e15 - s.count)
                s.count, s.clean = s.count + added, false
                if s.n == s.head then
                    s.head, s.n, s.oldest, s.newest, s.newest_cost, s.tail = 0, 1, ticket, ticket, added, added
                    local life = log_life(s)
                    redis.call('SET', s.key, header(s) .. ('\0'):rep(16) .. struct.pack('<dd', ticket, added), 'PX', life)
                    s.text, s.base, s.clean = '', 0, true
                else
                    if s.newest >= ticket then
                        s.newest_cost, s.tail = s.newest_cost + added, s.tail + added
                    else
                        if s.head >= 16 or s.n >= 16384 then
                            log = log or log_rules(entry, trim_head, header, log_life)
                            log.compact(s)
                        end
                        if s.n % 256 == 0 then
                            log = log or log_rules(entry, trim_head, header, log_life)
                            log.put_sum(s, s.n / 256 - 1, s.tail)
                            s.tail = 0
                        end
                        s.newest, s.newest_cost, s.tail, s.n = ticket, added, s.tail + added, s.n + 1
                    end
                    local last = s.n - 1
                    redis.call('SETRANGE', s.key, 96 + (last + math.floor(last / 256)) * 16,
                        struct.pack('<dd', s.newest, s.newest_cost))
                    s.text, s.base = '', 0
                end
            end
            if opens[i] then
                redis.call('ZADD', opens[i], now + 45000000,
                    blob:sub(1, 16) .. string.char(i - 1) .. struct.pack('<dd', ticket, cost))
                redis.call('PEXPIRE', opens[i], '120000')
            end
        end
    end
end

local out = struct.pack('<dB', now, admitted and 1 or 0)
for i = 1, count do
    local s, cost = items[i], costs[i]
    if cost then
        s.kept = s.kept or save(header, log_life, s)
        out = out .. s.kept
        if s.kind == 1 then
            local fits, less = 0, 0
            s.asked = (s.asked or 0) + cost
            local room = s.amount - s.asked
            if s.count > s.amount or (not admitted and room >= 0 and s.count > room) then
                log = log or log_rules(entry, trim_head, header, log_life)
                fits = room >= 0 and log.fits_at(s, room) or 0
                less = s.count > s.amount and log.fits_at(s, math.max(s.amount - 1, 0)) or 0
            end
            out = out .. struct.pack('<dd', fits, less)
        end
    end
end
return out
