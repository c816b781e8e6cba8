#!lua flags=no-writes
-- Read one record, which KEYS[1] names: alone of all scripts, so that a Cluster can say where it is.
-- Result: g, b, s, k, k0, l, f

return (record(KEYS[1], 's', 'k', 'k0', 'l', 'f'))
