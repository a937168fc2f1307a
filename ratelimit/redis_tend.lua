-- Says that a gateway lives: renews its leases (places and reservations) and counts the living.
--
-- KEYS: the sorted set of gateways, then that of each lease. ARGV[1]: the gateway's id of 8 bytes. ARGV[2], ...: the
-- member of each lease: 17 bytes for a place, 33 for a reservation. Answers with the number of gateways.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

redis.call('ZADD', KEYS[1], now + 15000000, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], '60000')
for i = 2, #KEYS do
    local member = ARGV[i]
    if #member == 33 then
        -- One that has lapsed was given back: it stays so until it is settled.
        redis.call('ZADD', KEYS[i], 'XX', now + 45000000, member)
        redis.call('PEXPIRE', KEYS[i], '120000')
    else
        redis.call('ZADD', KEYS[i], now + 14000000, member)
        redis.call('PEXPIRE', KEYS[i], '60000')
    end
end
return redis.call('ZCARD', KEYS[1])
