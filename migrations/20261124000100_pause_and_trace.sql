-- An operator holds back new migrations: while there is a row none gets a slot. Those under way end.
CREATE TABLE pause (
    one        boolean     PRIMARY KEY DEFAULT true CONSTRAINT pause_one_check CHECK (one),
    reason     text        NOT NULL,
    paused_by  text        NOT NULL,
    since      timestamptz NOT NULL DEFAULT now()
);

-- The W3C trace context of the request: whoever drives the migration goes on with its trace.
ALTER TABLE migrations ADD COLUMN traceparent text CONSTRAINT migrations_traceparent_check CHECK (length(traceparent) = 55);
