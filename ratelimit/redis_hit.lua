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

local PLACE_LIFE, RESERVATION_LIFE = 14000000, 45000000

-- floor(a * b / c) of numbers with b <= c: exact, also if the product is not.
local function mul_div(a, b, c)
    local product = a * b
    if product < EXACT then
        return (product - fmod(product, c)) / c
    end
    -- Long multiplication: by digits of `a` so small that no step reaches 2^53.
    local base, scale, quotient, rest = 2, 1, 0, 0
    while c * base * 2 <= EXACT do
        base = base * 2
    end
    while scale * base <= a do
        scale = scale * base
    end
    while scale >= 1 do
        local digit, high = floor(a / scale), rest * base
        rest = fmod(high, c)
        local low = rest + digit * b
        quotient = quotient * base + (high - rest) / c
        rest = fmod(low, c)
        quotient = quotient + (low - rest) / c
        a, scale = a - digit * scale, scale / base
    end
    return quotient
end

local function used(s)
    if s.previous == 0 then
        return s.count
    end
    return mul_div(s.previous, s.start + s.window - s.t, s.window) + s.count
end

-- When no more than `most` of a log is used.
local function fits_at(s, most)
    local count, i, at, cost = s.count, s.head
    if count <= most then
        return s.t
    elseif most == 0 then
        return s.newest + s.window
    end
    while count > most do
        local sum = i % BLOCK == 0 and i + BLOCK < s.n and block_sum(s, i / BLOCK)
        if sum and count - sum > most then
            count, i = count - sum, i + BLOCK
        else
            at, cost = entry(s, i, 64)
            count, i = count - cost, i + 1
        end
    end
    return at + s.window
end

-- Gives back what was reserved by those who are gone.
local function lapse(s, open)
    local gone = call('ZRANGEBYSCORE', open, '-inf', now, 'LIMIT', '0', '100')
    for _, member in ipairs(gone) do
        if #member == 33 then
            local ticket, cost = read('<dd', member, 18)
            adjust(s, ticket, -cost)
        end
        call('ZREM', open, member)
    end
end

local blob = ARGV[1]
local id, count, key, admitted = blob:sub(1, 16), (#blob - 16) / 25, 1, true
local items, costs, opens, states = {}, {}, {}, nil

for i = 1, count do
    local kind, amount, window, cost = read('<Bddd', blob, i * 25 - 8)
    local name = KEYS[key]
    key = key + 1
    if kind == PLACE then
        call('ZREMRANGEBYSCORE', name, '-inf', now)
        if call('ZCARD', name) >= amount then
            return write('<dB', now, i + 1)
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
            s = load(name, kind, amount, window)
            if states then
                states[name] = s
            end
        end
        if open then
            lapse(s, open)
        end
        local total = cost + s.pending
        s.pending = total
        items[i], costs[i], opens[i] = s, cost, open
        if amount == 0 or total > amount or used(s) > amount - total then
            admitted = false
        end
    end
end

if admitted then
    for i = 1, count do
        local s, cost, ticket = items[i], costs[i], nil
        if not cost then
            call('ZADD', s, now + PLACE_LIFE, id .. string.char(i - 1))
            call('PEXPIRE', s, '60000')
        elseif cost ~= 0 then
            if s.strategy == MOVING then
                ticket = push(s, cost)
            else
                if s.count == 0 and s.previous == 0 then
                    s.start, s.moved = s.t, true
                end
                s.count, ticket = min(s.count + cost, COUNT_MAX), s.t
            end
            if opens[i] then
                call('ZADD', opens[i], now + RESERVATION_LIFE, id .. string.char(i - 1) .. write('<dd', ticket, cost))
                call('PEXPIRE', opens[i], '120000')
            end
        end
    end
end

local out, total = write('<dB', now, admitted and 1 or 0), {}
for i = 1, count do
    local s, cost = items[i], costs[i]
    if cost then
        s.text_kept = s.text_kept or save(s)
        out = out .. s.text_kept
        if s.strategy == MOVING then
            local fits, less = 0, 0
            total[s] = (total[s] or 0) + cost
            local room = s.amount - total[s]
            if not admitted and room >= 0 and s.count > room then
                fits = fits_at(s, room)
            end
            if s.count > s.amount then
                less = fits_at(s, max(s.amount - 1, 0))
            end
            out = out .. write('<dd', fits, less)
        end
    end
end
return out
