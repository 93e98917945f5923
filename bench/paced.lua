-- wrk script: as call.lua, but each connection pauses before each request. Without the
-- pause a server with more requests than it can serve shows only how long its queue is.
dofile((debug.getinfo(1, "S").source:sub(2):gsub("[^/]*$", "")) .. "call.lua")

function delay() return math.random(50, 150) end
