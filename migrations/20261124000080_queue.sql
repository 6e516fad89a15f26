-- Who goes first when a slot gets free, and how the links between the hosts are shared.
ALTER TABLE migrations
    ADD COLUMN priority      integer NOT NULL DEFAULT 0, -- the higher the sooner; equal ones in the order of their requests
    ADD COLUMN queued_at     timestamptz,                -- in line for a slot since then: queued, or accepted again as its turn came
    ADD COLUMN slot_hosts    text[],                     -- destinations that only lack a slot; NULL: not known, any may do
    ADD COLUMN bandwidth_mib bigint;                     -- its share of the links, MiB/s; NULL: they have no limit
UPDATE migrations SET queued_at = coalesce(updated_at, created_at) WHERE status = 'queued';
CREATE INDEX migrations_line_idx ON migrations (priority DESC, id) WHERE queued_at IS NOT NULL;

-- As the host's agent is configured, MiB/s; 0: no limit.
ALTER TABLE compute_nodes
    ADD COLUMN link_bandwidth_mib      bigint NOT NULL DEFAULT 0, -- of all migrations that leave it, and of all that arrive
    ADD COLUMN migration_bandwidth_mib bigint NOT NULL DEFAULT 0; -- of one that leaves it
