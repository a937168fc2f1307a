-- The end of what redis_hit.lua admitted: adds to what hits consumed, ends their reservations, frees places.
--
-- ARGV[1]: the id; then for each item two bytes and five doubles: kind, number (as in the hit), amount, window, ticket,
-- cost, delta. KEYS as for the hit.

local blob = ARGV[1]
local key, log = 1, nil

for at = 17, #blob, 42 do
    local kind, number, amount, window, ticket, cost, delta = struct.unpack('<BBddddd', blob, at)
    local name, open = KEYS[key], nil
    local member = blob:sub(1, 16) .. string.char(number)
    key = key + 1
    if kind >= 16 then
        kind, open, key = kind - 16, KEYS[key], key + 1
    end
    if kind == 3 then
        redis.call('ZREM', name, member)
    else
        -- One that has lapsed was given back: then all that was used is to be added.
        if open and redis.call('ZREM', open, member .. struct.pack('<dd', ticket, cost)) == 0 then
            delta = delta + cost
        end
        if delta ~= 0 then
            local s = load(entry, trim_head, load_log, name, kind, amount, window, now, slack_ms)
            if not s.fresh then
                log = log or kind == 1 and log_rules(entry, trim_head, header, log_life)
                adjust(log, s, ticket, delta)
                save(header, log_life, s)
            end
        end
    end
end
return 1
