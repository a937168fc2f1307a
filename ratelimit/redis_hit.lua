-- Decides on all that applies to one request: places among a maximum of streams, and limits. All are taken, or none.
--
-- ARGV[1]: an id of 16 bytes; then for each item a byte and three doubles: kind (a strategy, or 3 for a place; 16 more
-- for a limit that reserves), amount, window, cost. Places come first.
-- KEYS: of each item its key and, if it reserves, that of its open reservations: a sorted set by the time at which they
-- lapse, of (id, the item's number, ticket, cost).
-- Answers with doubles: the time, the number of the place that is not free or 0, and for each limit whether it allows
-- the hit, remaining, reset, full, retry (-1: never) and ticket.

local PLACE_LIFE, RESERVATION_LIFE = 14000000, 45000000

local function used(s)
    if s.previous == 0 then
        return s.count
    end
    return mul_div(s.previous, s.start + s.window - s.t, s.window) + s.count
end

-- When no more than `most` is used.
local function fits_at(s, most)
    local t, window, count = s.t, s.window, s.count
    if s.strategy == MOVING then
        if count <= most then
            return t
        elseif most == 0 then
            return s.newest + window
        elseif most == count - 1 then
            return s.oldest + window
        end
        local i, at, cost = s.head
        while count > most do
            local sum = i % BLOCK == 0 and i + BLOCK < s.n and block_sum(s, i / BLOCK)
            if sum and count - sum > most then
                count, i = count - sum, i + BLOCK
            else
                at, cost = entry(s, i, 64)
                count, i = count - cost, i + 1
            end
        end
        return at + window
    end
    local stop = s.start + window
    if s.strategy ~= SLIDING then
        return count > most and stop or t
    end
    if count > most then
        return stop + window - left_when(count, window, most)
    end
    if s.previous == 0 then
        return t
    end
    local left = left_when(s.previous, window, most - count)
    return left < stop - t and stop - left or t
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
local id, count = blob:sub(1, 16), (#blob - 16) / 25
local items, states, key, admitted = {}, {}, 1, true

for i = 1, count do
    local kind, amount, window, cost = read('<Bddd', blob, 17 + (i - 1) * 25)
    local name, open = KEYS[key]
    key = key + 1
    if kind >= 16 then
        kind, open, key = kind - 16, KEYS[key], key + 1
    end
    if kind == PLACE then
        call('ZREMRANGEBYSCORE', name, '-inf', now)
        if call('ZCARD', name) >= amount then
            return write('<dd', now, i)
        end
        items[i] = {place = name}
    else
        local s = states[name]
        if not s then
            s = load(name, kind, amount, window)
            s.pending, states[name] = 0, s
        end
        if open then
            lapse(s, open)
        end
        local total, retry = cost + s.pending, -1
        local allowed = amount ~= 0 and total <= amount
        s.pending = total
        if allowed then
            allowed = used(s) <= amount - total
            retry = (allowed and s.t or fits_at(s, amount - total)) - s.offset
        end
        admitted = admitted and allowed
        items[i] = {s = s, open = open, cost = cost, retry = retry, allowed = allowed, ticket = 0}
    end
end

if admitted then
    for i = 1, count do
        local item = items[i]
        local s, cost = item.s, item.cost
        if not s then
            call('ZADD', item.place, now + PLACE_LIFE, id .. string.char(i - 1))
            call('PEXPIRE', item.place, '60000')
        elseif cost == 0 then
            item.ticket = s.t
        elseif s.strategy == MOVING then
            item.ticket = push(s, cost)
        else
            if s.count == 0 and s.previous == 0 then
                s.start, s.moved = s.t, true
            end
            s.count, item.ticket = min(s.count + cost, COUNT_MAX), s.t
        end
        if item.open then
            call('ZADD', item.open, now + RESERVATION_LIFE,
                id .. string.char(i - 1) .. write('<dd', item.ticket, cost))
            call('PEXPIRE', item.open, '120000')
        end
    end
end

for _, s in pairs(states) do
    save(s)
end

local out = {write('<dd', now, 0)}
for i = 1, count do
    local item = items[i]
    local s = item.s
    if s then
        local consumed, reset, full = used(s), s.t, s.t
        if consumed ~= 0 then
            reset, full = fits_at(s, max(min(consumed, s.amount) - 1, 0)), fits_at(s, 0)
        end
        out[#out + 1] = write('<dddddd', item.allowed and 1 or 0, max(s.amount - consumed, 0), reset - s.offset,
            full - s.offset, item.retry, item.ticket)
    end
end
return table.concat(out)
