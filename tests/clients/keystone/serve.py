"""A Keystone of a test's own: database and keys in a directory, served on a port of the loopback interface.

    serve.py prepare DIRECTORY PASSWORD      makes database, keys, and the user admin
    serve.py serve DIRECTORY PORT LIFETIME   serves it; its tokens are good for LIFETIME seconds
"""

import pathlib
import shutil
import subprocess
import sys
import wsgiref.simple_server

CONFIGURATION = """
[DEFAULT]
log_file = {directory}/keystone.log
[database]
connection = sqlite:///{directory}/keystone.db
[fernet_tokens]
key_repository = {directory}/fernet-keys
[credential]
key_repository = {directory}/credential-keys
"""


def prepare(directory, password):
    shutil.rmtree(directory, ignore_errors=True)
    for keys in ("fernet-keys", "credential-keys"):
        (directory / keys).mkdir(parents=True)
    configuration = directory / "keystone.conf"
    configuration.write_text(CONFIGURATION.format(directory=directory))
    manage = [pathlib.Path(sys.executable).parent / "keystone-manage", "--config-file", configuration]
    subprocess.run([*manage, "db_sync"], check=True)
    subprocess.run([*manage, "fernet_setup", "--keystone-user", "root", "--keystone-group", "root"], check=True)
    subprocess.run([*manage, "bootstrap", "--bootstrap-password", password], check=True)


def serve(directory, port, lifetime):
    sys.argv = sys.argv[:1]  # Keystone would read the rest as its own.
    from keystone.conf import CONF
    from keystone.server.flask import core

    application = core.initialize_application(name="public", config_files=[str(directory / "keystone.conf")])
    CONF.set_override("expiration", int(lifetime), group="token")
    wsgiref.simple_server.make_server("127.0.0.1", int(port), application).serve_forever()


verb, directory, *rest = sys.argv[1:]
{"prepare": prepare, "serve": serve}[verb](pathlib.Path(directory), *rest)
