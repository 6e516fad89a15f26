"""Switches a host off and on, and makes and removes an aggregate and a server group; says what it saw on the way."""

import json
import sys

import openstack

(host,) = sys.argv[1:]
compute = openstack.connect(load_yaml_config=False, compute_default_microversion="2.90").compute


def service():
    return next(compute.services(host=host, binary="nova-compute"))


seen = {}
compute.disable_service(service(), disabled_reason="maintenance")
seen["disabled"] = [service().status, service().disabled_reason]
compute.enable_service(service())
seen["enabled"] = service().status
compute.update_service_forced_down(service(), forced=True)
seen["forced_down"] = [service().state, service().is_forced_down]
compute.update_service_forced_down(service(), forced=False)
seen["back"] = service().state

aggregate = compute.create_aggregate(name="sdk", availability_zone="west")
compute.add_host_to_aggregate(aggregate, host)
seen["aggregate"] = [[a.name, a.availability_zone, a.hosts] for a in compute.aggregates()]
seen["zones"] = sorted(z.name for z in compute.availability_zones())
compute.remove_host_from_aggregate(aggregate, host)
compute.delete_aggregate(aggregate)

group = compute.create_server_group(name="sdk", policy="soft-affinity")
seen["group"] = [[g.name, g.policy] for g in compute.server_groups()]
compute.delete_server_group(group)
seen["left"] = [len(list(compute.aggregates())), len(list(compute.server_groups()))]
print(json.dumps(seen))
