-- What is wanted, and who may act. What *is* stands in the hosts' libvirt. See docs/live-migration.md.
--
-- Names of tables and columns are Nova's where Nova has them. All times are this database's now().

-- ---------------------------------------------------------------- hosts

-- One row a process that heartbeats. The administrative wishes (disabled, forced_down) are the operator's.
CREATE TABLE services (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid            uuid        NOT NULL DEFAULT gen_random_uuid() CONSTRAINT services_uuid_key UNIQUE,
    binary_name     text        NOT NULL,
    host            text        NOT NULL CONSTRAINT services_host_check CHECK (host ~ '^[A-Za-z0-9._-]{1,255}$'),
    disabled        boolean     NOT NULL DEFAULT false,
    disabled_reason text,
    forced_down     boolean     NOT NULL DEFAULT false,
    last_seen_up    timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz,
    CONSTRAINT services_host_binary_key UNIQUE (host, binary_name)
);

-- One row a host: what its agent last reported. Totals only; what is used follows from servers and claims.
CREATE TABLE compute_nodes (
    id                  bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid                uuid        NOT NULL CONSTRAINT compute_nodes_uuid_key UNIQUE, -- libvirt's host UUID: the host's identity
    host                text        NOT NULL CONSTRAINT compute_nodes_host_key UNIQUE,
    service_id          bigint      NOT NULL REFERENCES services (id),
    hypervisor_hostname text        NOT NULL,
    hypervisor_type     text        NOT NULL,
    hypervisor_version  integer     NOT NULL,
    libvirt_version     integer     NOT NULL,
    host_ip             text        NOT NULL,
    vcpus               integer     NOT NULL,
    memory_mb           bigint      NOT NULL,
    local_gb            bigint      NOT NULL,
    free_disk_gb        bigint      NOT NULL,
    cpu_info            jsonb       NOT NULL,
    incarnation         uuid        NOT NULL, -- the agent's present life; words from an earlier one are dropped
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz
);

-- ---------------------------------------------------------------- servers

CREATE TABLE servers (
    uuid                 uuid        PRIMARY KEY, -- = the domain's
    id                   bigint      GENERATED ALWAYS AS IDENTITY,
    display_name         text        NOT NULL,
    domain_name          text        NOT NULL,
    project_id           text        NOT NULL,
    user_id              text        NOT NULL,
    host                 text        NOT NULL,
    node                 text        NOT NULL,
    vm_state             text        NOT NULL CONSTRAINT servers_vm_state_check CHECK (vm_state IN ('active', 'paused', 'stopped', 'error', 'deleted')),
    task_state           text        CONSTRAINT servers_task_state_check CHECK (task_state IN ('migrating')),
    power_state          smallint    NOT NULL,
    progress             smallint    NOT NULL DEFAULT 0,
    flavor_name          text        NOT NULL,
    vcpus                integer     NOT NULL,
    memory_mb            integer     NOT NULL,
    root_gb              integer     NOT NULL,
    ephemeral_gb         integer     NOT NULL,
    swap_mb              integer     NOT NULL,
    persistent           boolean     NOT NULL,
    locked               boolean     NOT NULL DEFAULT false,
    metadata             jsonb       NOT NULL DEFAULT '{}',
    -- The report that last wrote host facts here: (agent's life, its count). An older one never overwrites it.
    observed_incarnation uuid        NOT NULL,
    observed_sequence    bigint      NOT NULL,
    launched_at          timestamptz NOT NULL DEFAULT now(),
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now(),
    deleted_at           timestamptz
);
CREATE INDEX servers_host_idx ON servers (host) WHERE deleted_at IS NULL;
CREATE INDEX servers_project_idx ON servers (project_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX servers_created_idx ON servers (created_at DESC, id DESC) WHERE deleted_at IS NULL;

CREATE TABLE instance_faults (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server_uuid uuid        NOT NULL REFERENCES servers (uuid) ON DELETE CASCADE,
    code        integer     NOT NULL,
    message     text        NOT NULL,
    details     text,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX instance_faults_server_idx ON instance_faults (server_uuid, id DESC);

-- One row an API request that does something to a server, one event row a step of it.
CREATE TABLE instance_actions (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server_uuid uuid        NOT NULL REFERENCES servers (uuid) ON DELETE CASCADE,
    action      text        NOT NULL,
    request_id  text        NOT NULL,
    user_id     text,
    project_id  text,
    message     text, -- NULL or 'Error'
    start_time  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT instance_actions_request_key UNIQUE (server_uuid, request_id)
);
CREATE TABLE instance_action_events (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    action_id   bigint      NOT NULL REFERENCES instance_actions (id) ON DELETE CASCADE,
    event       text        NOT NULL,
    host        text,
    start_time  timestamptz NOT NULL DEFAULT now(),
    finish_time timestamptz,
    result      text        CONSTRAINT instance_action_events_result_check CHECK (result IN ('Success', 'Error')),
    details     text
);
CREATE INDEX instance_action_events_action_idx ON instance_action_events (action_id, id DESC);

-- ---------------------------------------------------------------- migrations

CREATE TABLE migrations (
    id                          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uuid                        uuid        NOT NULL DEFAULT gen_random_uuid() CONSTRAINT migrations_uuid_key UNIQUE,
    server_uuid                 uuid        NOT NULL REFERENCES servers (uuid),
    migration_type              text        NOT NULL DEFAULT 'live-migration',
    status                      text        NOT NULL CONSTRAINT migrations_status_check CHECK (status IN (
                                    'accepted', 'queued', 'preparing', 'running', 'running (post-copy)', 'post-migrating',
                                    'rolling-back', 'completed', 'failed', 'cancelled', 'error')),
    -- What was asked for, and by whom.
    requested_host              text,
    skip_scheduler              boolean     NOT NULL, -- the host is taken as it is (Nova: below 2.30, or force)
    block_migration             boolean,              -- NULL: each disk decides
    disk_over_commit            boolean,
    user_id                     text        NOT NULL,
    project_id                  text        NOT NULL,
    request_id                  text        NOT NULL,
    action_id                   bigint      NOT NULL REFERENCES instance_actions (id),
    reply_to                    text,                 -- the API process that waits for the prechecks
    abort_requested_at          timestamptz,
    abort_requested_by          text,
    force_complete_requested_at timestamptz,
    force_complete_requested_by text,
    -- From where to where.
    source_compute              text        NOT NULL,
    source_node                 text,
    dest_compute                text,
    dest_node                   text,
    -- Who may act. `attempt` fences agents, `revision` is the version for compare-and-swap.
    attempt                     integer     NOT NULL DEFAULT 0,
    revision                    bigint      NOT NULL DEFAULT 1,
    driven_by                   uuid,                 -- the conductor that drives it just now
    lease_until                 timestamptz,
    wanted                      bigint      NOT NULL DEFAULT 0, -- counts events, so that none is missed while another drives
    deadline                    timestamptz NOT NULL DEFAULT now(), -- when the sweep looks at it, if nothing happens before
    -- What was found out and done.
    retries                     integer     NOT NULL DEFAULT 0,
    refusals                    jsonb       NOT NULL DEFAULT '[]', -- [{"host", "class", "reason"}], this round's
    migrate_data                jsonb,
    pre_done                    boolean     NOT NULL DEFAULT false,
    casts                       integer     NOT NULL DEFAULT 0, -- of live_migration to the source, this attempt
    start_incarnation           uuid,                 -- the agent's life that was granted the start
    ending                      text        CONSTRAINT migrations_ending_check CHECK (ending IN ('retry', 'failed', 'cancelled')),
    waiting_for                 text,                 -- why nothing moves, for people
    fault_class                 text,
    fault_message               text,
    -- How the copy goes. The six counters are Nova's.
    memory_total                bigint,
    memory_processed            bigint,
    memory_remaining            bigint,
    disk_total                  bigint,
    disk_processed              bigint,
    disk_remaining              bigint,
    progress                    jsonb,                -- the whole last sample
    job_result                  jsonb,                -- libvirt's account of the ended job, if it was seen
    -- When.
    created_at                  timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_at                  timestamptz,
    started_at                  timestamptz,
    switched_over_at            timestamptz,
    ended_at                    timestamptz,
    updated_at                  timestamptz,
    CONSTRAINT migrations_dest_check CHECK (dest_compute <> source_compute)
);
-- One open migration a server, whatever its task_state says.
CREATE UNIQUE INDEX migrations_one_open_per_server ON migrations (server_uuid)
    WHERE status NOT IN ('completed', 'failed', 'cancelled', 'error');
CREATE INDEX migrations_due_idx ON migrations (deadline) WHERE status NOT IN ('completed', 'failed', 'cancelled', 'error');
CREATE INDEX migrations_server_idx ON migrations (server_uuid, id DESC);
CREATE INDEX migrations_created_idx ON migrations (created_at DESC, id DESC);

-- What a migration holds from `preparing` to its end: the guest's size on the destination, a slot on both hosts, one of the fleet's.
CREATE TABLE claims (
    migration_id bigint  PRIMARY KEY REFERENCES migrations (id) ON DELETE CASCADE,
    source_host  text    NOT NULL,
    dest_host    text    NOT NULL,
    vcpus        integer NOT NULL,
    memory_mb    integer NOT NULL,
    disk_gb      integer NOT NULL
);
CREATE INDEX claims_source_idx ON claims (source_host);
CREATE INDEX claims_dest_idx ON claims (dest_host);

-- What a host still owes after its migration was closed without it: paid when its agent returns.
CREATE TABLE cleanup_debts (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration_id bigint      NOT NULL REFERENCES migrations (id) ON DELETE CASCADE,
    server_uuid  uuid        NOT NULL,
    host         text        NOT NULL,
    side         text        NOT NULL CONSTRAINT cleanup_debts_side_check CHECK (side IN ('source', 'destination')),
    left_by      integer     NOT NULL, -- the attempt
    migrate_data jsonb       NOT NULL,
    last_error   text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    paid_at      timestamptz,
    CONSTRAINT cleanup_debts_once UNIQUE (migration_id, host, left_by)
);
CREATE INDEX cleanup_debts_open_idx ON cleanup_debts (host, server_uuid) WHERE paid_at IS NULL;

-- What an operator should look at: an ownership conflict, a job that nobody asked for, a leftover.
CREATE TABLE findings (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text        NOT NULL,
    server_uuid uuid        NOT NULL,
    host        text        NOT NULL,
    details     text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz
);
CREATE UNIQUE INDEX findings_open_key ON findings (kind, server_uuid, host) WHERE resolved_at IS NULL;

-- ---------------------------------------------------------------- messages and audit

-- What a transaction promised to send. Published at once by whoever wrote it; a conductor's sweep publishes what was left.
CREATE TABLE outbox (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    address      text        NOT NULL,
    envelope     jsonb       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz
);
CREATE INDEX outbox_unpublished_idx ON outbox (id) WHERE published_at IS NULL;

-- Who did what, and what came of it.
CREATE TABLE audit (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    user_id    text,
    project_id text,
    request_id text,
    action     text        NOT NULL,
    target     text        NOT NULL,
    details    text
);
CREATE INDEX audit_at_idx ON audit (at);
