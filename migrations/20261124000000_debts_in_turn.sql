-- Debts are tried in turn: one that cannot be paid keeps no other back.
ALTER TABLE cleanup_debts ADD COLUMN tried_at timestamptz;

-- What the purge of published messages looks for.
CREATE INDEX outbox_published_idx ON outbox (published_at) WHERE published_at IS NOT NULL;
