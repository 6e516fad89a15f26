"""Makes the projects, users and roles of the tests, and where Keystone and the compute API are; says the projects' ids.

Every user's password is the one that we log in with.
"""

import json
import os
import sys

import openstack

keystone_url, compute_url = sys.argv[1:]
# The catalogue does not say yet where Keystone itself is.
identity = openstack.connect(load_yaml_config=False, identity_endpoint_override=keystone_url).identity
roles = {role.name: role for role in identity.roles()}
projects = {project.name: project for project in identity.projects()}
for name in ("service", "one", "two"):
    projects[name] = projects.get(name) or identity.create_project(name=name, domain_id="default")
users = {user.name: user for user in identity.users()}
for name, project, role in [
    ("nova", "service", "service"),
    ("manager", "one", "manager"),
    ("member", "one", "member"),
    ("reader", "one", "reader"),
    ("stranger", "two", "manager"),
]:
    user = users.get(name) or identity.create_user(name=name, domain_id="default", password=os.environ["OS_PASSWORD"])
    identity.assign_project_role_to_user(projects[project], user, roles[role])

for endpoint in identity.endpoints():
    identity.delete_endpoint(endpoint)
services = {service.type: service for service in identity.services()}
for kind, url in [("identity", keystone_url), ("compute", compute_url)]:
    service = services.get(kind) or identity.create_service(name=kind, type=kind)
    identity.create_endpoint(service_id=service.id, interface="public", url=url)
print(json.dumps({name: project.id for name, project in projects.items()}))
