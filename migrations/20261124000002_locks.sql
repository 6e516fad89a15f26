-- Who locked a server (its own project or an admin of another), and why.
ALTER TABLE servers ADD COLUMN locked_by text CONSTRAINT servers_locked_by_check CHECK (locked_by IN ('owner', 'admin'));
ALTER TABLE servers ADD COLUMN locked_reason text;
UPDATE servers SET locked_by = 'admin' WHERE locked;
ALTER TABLE servers ADD CONSTRAINT servers_locked_check CHECK (locked = (locked_by IS NOT NULL) AND (locked OR locked_reason IS NULL));
