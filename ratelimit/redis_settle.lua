-- The end of what redis_hit.lua admitted: adds to what hits consumed, ends their reservations, frees places.
--
-- ARGV[1]: the id; then for each item two bytes and five doubles: kind, number (as in the hit), amount, window, ticket,
-- cost, delta. KEYS as for the hit.

local blob = ARGV[1]
local id, key = blob:sub(1, 16), 1

for at = 17, #blob, 42 do
    local kind, number, amount, window, ticket, cost, delta = read('<BBddddd', blob, at)
    local name, open = KEYS[key], nil
    local member = id .. string.char(number)
    key = key + 1
    if kind >= 16 then
        kind, open, key = kind - 16, KEYS[key], key + 1
    end
    if kind == PLACE then
        call('ZREM', name, member)
    else
        -- One that has lapsed was given back: then all that was used is to be added.
        if open and call('ZREM', open, member .. write('<dd', ticket, cost)) == 0 then
            delta = delta + cost
        end
        if delta ~= 0 then
            local s = load(name, kind, amount, window)
            if not s.fresh then
                adjust(s, ticket, delta)
                save(s)
            end
        end
    end
end
return 1
