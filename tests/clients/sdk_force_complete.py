"""Forces the one migration of a server that is in progress to its end, and says which it was."""

import json
import sys

import openstack

compute = openstack.connect(load_yaml_config=False).compute
server = compute.get_server(sys.argv[1])
(migration,) = compute.server_migrations(server)
compute.force_complete_server_migration(migration, server)
print(json.dumps({"status": migration.status, "source": migration.source_compute, "dest": migration.dest_compute}))
