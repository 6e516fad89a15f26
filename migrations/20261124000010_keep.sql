-- An operator's choice in an ownership conflict: the copy on this host is the guest.
ALTER TABLE migrations
    ADD COLUMN keep_host text,
    ADD COLUMN keep_requested_by text;
