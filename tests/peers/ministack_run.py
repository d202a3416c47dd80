"""Runs ministack with every running EC2 instance taken for a managed node. Its environment sets address and port."""

import ministack.services.ec2 as ec2
from ministack.app import main


def is_running(instance_id):
    instance = ec2._instances.get(instance_id)
    return bool(instance) and instance["State"]["Name"] == "running"


ec2.instance_is_managed = is_running
main()
