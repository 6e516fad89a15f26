-- Host aggregates, and the availability zones that they make: one whose metadata has `availability_zone` puts its hosts there.

CREATE TABLE aggregates (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid       uuid        NOT NULL DEFAULT gen_random_uuid() CONSTRAINT aggregates_uuid_key UNIQUE,
    name       text        NOT NULL CONSTRAINT aggregates_name_key UNIQUE,
    metadata   jsonb       NOT NULL DEFAULT '{}', -- text to text
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz
);
CREATE TABLE aggregate_hosts (
    aggregate_id bigint NOT NULL REFERENCES aggregates (id),
    host         text   NOT NULL REFERENCES compute_nodes (host) ON DELETE CASCADE,
    CONSTRAINT aggregate_hosts_key PRIMARY KEY (aggregate_id, host)
);
CREATE INDEX aggregate_hosts_host_idx ON aggregate_hosts (host);

-- Which host is in which zone. At most one row a host: whoever writes locks `aggregates` and sees to it.
CREATE VIEW host_zones AS
    SELECT h.host AS zone_host, a.metadata ->> 'availability_zone' AS zone
    FROM aggregate_hosts h JOIN aggregates a ON a.id = h.aggregate_id
    WHERE a.metadata ? 'availability_zone';

-- The zone that a server must stay in (Nova: the one it was created in by name); none: it may go anywhere.
ALTER TABLE servers ADD COLUMN pinned_availability_zone text;
