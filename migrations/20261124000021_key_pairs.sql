-- Key pairs of users: public keys by name. Nothing here uses them; clients keep them here.
CREATE TABLE key_pairs (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id     text        NOT NULL,
    name        text        NOT NULL,
    public_key  text        NOT NULL,
    fingerprint text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT key_pairs_user_name_key UNIQUE (user_id, name)
);
