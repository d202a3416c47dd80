"""Serves ministack on a free port of loopback, with every running EC2 instance taken for a managed node.

Prints the port once it is bound, so that nobody else can take it between the choice and the start.
"""

import asyncio
import os
import socket

listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]
# ministack reads its port when it is imported.
os.environ["GATEWAY_PORT"] = str(port)

from hypercorn.asyncio import serve  # noqa: E402
from hypercorn.config import Config  # noqa: E402
from ministack.app import app  # noqa: E402
from ministack.services import ec2  # noqa: E402


def is_running(instance_id):
    instance = ec2._instances.get(instance_id)
    return bool(instance) and instance["State"]["Name"] == "running"


ec2.instance_is_managed = is_running
config = Config()
config.bind = [f"fd://{listener.fileno()}"]
print(port, flush=True)
asyncio.run(serve(app, config))
