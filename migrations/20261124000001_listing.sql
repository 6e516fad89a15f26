-- What listings of servers filter and sort by. Each index serves one filter together with the usual order, so that the first page
-- of any filter is read from the index and nothing is sorted. EXPLAIN of each is in docs/performance.md.

-- The guest's host name as Nova makes it of the server's name (sanitize_hostname); a column, because it is filtered by.
ALTER TABLE servers ADD COLUMN hostname text NOT NULL GENERATED ALWAYS AS (
    coalesce(
        nullif(rtrim(left(lower(btrim(regexp_replace(translate(display_name, ' _', '--'), '[^A-Za-z0-9.-]', '', 'g'), '.-')), 63), '.-'), ''),
        'server-' || uuid::text
    )
) STORED;

-- Regular expressions on names. A trusted extension: the owner of the database may create it.
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE INDEX servers_display_name_idx ON servers USING gin (display_name gin_trgm_ops) WHERE deleted_at IS NULL;
CREATE INDEX servers_hostname_idx ON servers USING gin (hostname gin_trgm_ops) WHERE deleted_at IS NULL;

DROP INDEX servers_host_idx;
CREATE INDEX servers_host_idx ON servers (host, created_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX servers_user_idx ON servers (user_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX servers_flavor_idx ON servers (flavor_name, created_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX servers_vm_state_idx ON servers (vm_state, created_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX servers_power_state_idx ON servers (power_state, created_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX servers_task_state_idx ON servers (task_state, created_at DESC, id DESC) WHERE deleted_at IS NULL AND task_state IS NOT NULL;
CREATE INDEX servers_progress_idx ON servers (progress) WHERE progress <> 0;
CREATE INDEX servers_locked_idx ON servers (created_at DESC, id DESC) WHERE deleted_at IS NULL AND locked;
CREATE INDEX servers_launched_idx ON servers (launched_at);
CREATE INDEX servers_updated_idx ON servers (updated_at);
-- Deleted servers, and listings with both kinds.
CREATE INDEX servers_deleted_idx ON servers (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX servers_all_created_idx ON servers (created_at DESC, id DESC);
CREATE INDEX servers_all_project_idx ON servers (project_id, created_at DESC, id DESC);
