-- Power actions: pause, unpause, start, stop, reboot, delete. One row each, the record that decides; task_state shows it.
ALTER TABLE servers DROP CONSTRAINT servers_task_state_check;
ALTER TABLE servers ADD CONSTRAINT servers_task_state_check CHECK (task_state IN (
    'migrating', 'pausing', 'unpausing', 'powering-on', 'powering-off', 'rebooting', 'rebooting_hard', 'deleting'));

CREATE TABLE power_actions (
    id                 bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server_uuid        uuid        NOT NULL REFERENCES servers (uuid) ON DELETE CASCADE,
    action             text        NOT NULL CONSTRAINT power_actions_action_check CHECK (action IN (
                           'pause', 'unpause', 'start', 'stop', 'reboot_soft', 'reboot_hard', 'delete')),
    instance_action_id bigint      NOT NULL REFERENCES instance_actions (id),
    user_id            text        NOT NULL,
    project_id         text        NOT NULL,
    request_id         text        NOT NULL,
    driven_by          uuid,                                -- the drive that is at it
    deadline           timestamptz NOT NULL DEFAULT now(),  -- the end of its lease; without one, when the sweep looks at it
    silent_since       timestamptz,                         -- the host does not answer
    waiting_for        text,                                -- why nothing moves, for people
    fault_class        text,
    fault_message      text,
    created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at           timestamptz
);
-- One at a time; a delete may wait for the end of another.
CREATE UNIQUE INDEX power_actions_one_open_per_server ON power_actions (server_uuid) WHERE ended_at IS NULL AND action <> 'delete';
CREATE UNIQUE INDEX power_actions_one_open_delete_per_server ON power_actions (server_uuid) WHERE ended_at IS NULL AND action = 'delete';
CREATE INDEX power_actions_due_idx ON power_actions (deadline) WHERE ended_at IS NULL;
