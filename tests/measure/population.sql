-- Servers FIRST to LAST, as an operator's database would have them, on a hundred hosts that have no agent: nobody reports about them.
-- Of those beyond the first hundred 5 % are deleted.
INSERT INTO services (binary_name, host, last_seen_up)
SELECT 'nova-compute', 'far-' || n, now() FROM generate_series(0, 99) AS n
ON CONFLICT DO NOTHING;

INSERT INTO compute_nodes (uuid, host, service_id, hypervisor_hostname, hypervisor_type, hypervisor_version, libvirt_version, host_ip,
                           vcpus, memory_mb, local_gb, free_disk_gb, cpu_info, incarnation)
SELECT gen_random_uuid(), host, id, host || '.example.org', 'QEMU', 10000002, 11003000, '192.0.2.1', 64, 524288, 8000, 4000, '{}',
       gen_random_uuid()
FROM services WHERE host LIKE 'far-%'
ON CONFLICT DO NOTHING;

INSERT INTO servers (uuid, display_name, domain_name, project_id, user_id, host, node, vm_state, task_state, power_state, progress,
                     flavor_name, vcpus, memory_mb, root_gb, ephemeral_gb, swap_mb, persistent, locked, locked_by, metadata, tags,
                     observed_incarnation, observed_sequence, launched_at, created_at, updated_at, deleted_at)
SELECT gen_random_uuid(),
       (ARRAY ['web', 'db', 'cache', 'build'])[n % 4 + 1] || '-' || n,
       'instance-' || lpad(to_hex(n), 8, '0'),
       'project-' || n % 500,
       'user-' || n % 1000,
       'far-' || n % 100,
       'far-' || n % 100 || '.example.org',
       CASE WHEN is_deleted THEN 'deleted' WHEN n % 50 = 1 THEN 'error' WHEN n % 25 = 2 THEN 'paused' WHEN n % 10 = 3 THEN 'stopped' ELSE 'active' END,
       CASE WHEN n % 1000 = 7 AND NOT is_deleted THEN 'migrating' END,
       CASE WHEN n % 25 = 2 THEN 3 WHEN n % 10 = 3 OR is_deleted THEN 4 ELSE 1 END,
       CASE WHEN n % 1000 = 7 THEN 42 ELSE 0 END,
       'm1.' || (ARRAY ['tiny', 'small', 'medium', 'large'])[n % 4 + 1],
       1 << n % 4, 512 << n % 4, 10, 0, 0, true,
       n % 100 = 4, CASE WHEN n % 100 = 4 THEN 'admin' END,
       jsonb_build_object('role', 'r' || n % 7),
       CASE WHEN n % 50 = 5 THEN ARRAY ['blue'] ELSE '{}' END,
       gen_random_uuid(), 1,
       now() - n * interval '1 minute', now() - n * interval '1 minute', now() - (n - n % 1000) * interval '1 minute',
       CASE WHEN is_deleted THEN now() - (n - n % 1000) * interval '1 minute' END
FROM generate_series(FIRST, LAST) AS n, LATERAL (SELECT n > 100 AND n % 20 = 19 AS is_deleted) AS d;

ANALYZE;
