-- How long after the guest's CPUs ran on the destination its agent's first announcement left, by that host's clock, in milliseconds;
-- NULL: there was none, or it is not known.
ALTER TABLE migrations ADD COLUMN announced_after_ms bigint
    CONSTRAINT migrations_announced_after_ms_check CHECK (announced_after_ms >= 0);
