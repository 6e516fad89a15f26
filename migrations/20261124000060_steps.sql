-- The truth about each migration: every phase with its time, the rules that its copy ran by, and each decision with its reason.
CREATE TABLE migration_steps (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration_id bigint      NOT NULL REFERENCES migrations (id) ON DELETE CASCADE,
    attempt      integer     NOT NULL,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind         text        NOT NULL CONSTRAINT migration_steps_kind_check CHECK (kind IN ('phase', 'policy', 'decision')),
    what         text        NOT NULL, -- the status that was entered, or what was decided
    why          text,
    elapsed_ms   bigint,               -- of libvirt's job, for what its source's agent decided
    CONSTRAINT migration_steps_once UNIQUE (migration_id, attempt, elapsed_ms, what) -- an agent may say it twice
);
CREATE INDEX migration_steps_migration_idx ON migration_steps (migration_id, id);

-- Here and not in each statement that goes along an edge: no phase can be forgotten.
CREATE FUNCTION note_migration_phase() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO migration_steps (migration_id, attempt, kind, what) VALUES (NEW.id, NEW.attempt, 'phase', NEW.status);
    RETURN NULL;
END $$;
CREATE TRIGGER migrations_first_phase AFTER INSERT ON migrations FOR EACH ROW EXECUTE FUNCTION note_migration_phase();
CREATE TRIGGER migrations_phase AFTER UPDATE OF status ON migrations FOR EACH ROW
    WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION note_migration_phase();

-- How often the source was told to go on with a post-copy that broke.
ALTER TABLE migrations ADD COLUMN recoveries integer NOT NULL DEFAULT 0;
