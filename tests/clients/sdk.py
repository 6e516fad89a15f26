"""What openstacksdk makes of the server that it is given: moves it to a host and away again, and says what it saw."""

import json
import sys

import openstack

server_id, host = sys.argv[1:]
compute = openstack.connect(load_yaml_config=False).compute

server = compute.get_server(server_id)
seen = {"name": server.name, "first": server.compute_host}
compute.live_migrate_server(server, host=host)
server = compute.wait_for_server(compute.get_server(server_id))
seen["second"] = server.compute_host
compute.live_migrate_server(server)
server = compute.wait_for_server(compute.get_server(server_id))
seen["third"] = server.compute_host
seen["migrations"] = [[m.source_compute, m.dest_compute, m.status] for m in compute.migrations(instance_uuid=server_id)]
seen["in_progress"] = [m.id for m in compute.server_migrations(server)]
seen["actions"] = [a.action for a in compute.server_actions(server)]
seen["servers"] = [s.name for s in compute.servers(all_projects=True)]
seen["services"] = sorted([s.host, s.binary, s.state] for s in compute.services(binary="nova-compute"))
seen["hypervisors"] = sorted([h.name, h.state] for h in compute.hypervisors(details=True))
print(json.dumps(seen))
