-- Tags of servers, and the index that their filters use.
ALTER TABLE servers ADD COLUMN tags text[] NOT NULL DEFAULT '{}';
CREATE INDEX servers_tags_idx ON servers USING gin (tags) WHERE deleted_at IS NULL;
