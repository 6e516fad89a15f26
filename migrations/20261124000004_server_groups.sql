-- Server groups: which servers are to be together, or apart.
CREATE TABLE server_groups (
    id                  bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid                uuid        NOT NULL DEFAULT gen_random_uuid() CONSTRAINT server_groups_uuid_key UNIQUE,
    name                text        NOT NULL,
    project_id          text        NOT NULL,
    user_id             text        NOT NULL,
    policy              text        NOT NULL CONSTRAINT server_groups_policy_check
                                    CHECK (policy IN ('affinity', 'anti-affinity', 'soft-affinity', 'soft-anti-affinity')),
    max_server_per_host integer     CONSTRAINT server_groups_max_check CHECK (
                                        max_server_per_host IS NULL OR (max_server_per_host > 0 AND policy = 'anti-affinity')),
    created_at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX server_groups_project_idx ON server_groups (project_id, id);

-- A server is in one group at most. The key's lock on the group keeps a claim and a change of membership apart.
ALTER TABLE servers ADD COLUMN server_group_id bigint REFERENCES server_groups (id) ON DELETE SET NULL;
CREATE INDEX servers_server_group_idx ON servers (server_group_id) WHERE server_group_id IS NOT NULL;
