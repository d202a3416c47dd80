"""A gateway with TLS and a token in front of simulated SSMs, and an address whose connections break."""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from datetime import timezone
from pathlib import Path
from tempfile import TemporaryDirectory

import trustme

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/peers"))
from fleet import read_by_boto3  # noqa: E402

# The output of all programs.
LOG = ROOT / ".tools/clients.log"
ACCOUNT = "123456789012"
NODES = 1237
LARGE = 40_000
# Less than half of the fleet.
CUT_AFTER = 150_000
# For so many seconds after the first cut every connection is closed: longer than the retries of the service config take.
OUTAGE = 3
# The faults of targets, in the simulator's format.
FAULTS = {
    "denied": {"failures": [{"kind": "access_denied"}]},
    "silent": {"failures": [{"kind": "hang"}]},
    # Longer than all retries of the service config take together if they ignore the advice.
    "throttled": {"failures": [{"kind": "throttling", "calls": 1, "retry_after": "3s"}]},
}


@contextlib.contextmanager
def gateway(languages):
    """Starts simulators and gateways. Yields the environment for the clients' tests, and the list of cut connections.

    Each language has targets of its own that throttle.
    """
    LOG.unlink(missing_ok=True)
    with TemporaryDirectory() as folder, contextlib.ExitStack() as programs:
        folder = Path(folder)
        simulator = programs.enter_context(program("simulate", f"--nodes={NODES}", "--listen=127.0.0.1:0"))
        large = programs.enter_context(program("simulate", f"--nodes={LARGE}", "--listen=127.0.0.1:0"))
        faulty = ["denied", "silent"]
        faulty += [f"throttled-{language}{suffix}" for language in languages for suffix in ["", "-stream"]]
        targets = f"[targets.fleet]\n[targets.other]\nregion = 'test-other-1'\n[targets.large]\nendpoint_url = '{large}'\n"
        for target in faulty:
            # A region is a fleet of its own.
            region = f"test-{target}-1"
            targets += f"[targets.{target}]\nregion = '{region}'\n"
            steer(simulator, region, FAULTS[target.split("-")[0]])
        token = secrets.token_hex(32)
        (folder / "token").write_text(token)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(folder / "tls.pem")
        config, open_config = folder / "gateway.toml", folder / "open.toml"
        upstream = f"[upstream]\nendpoint_url = '{simulator}'\nregion = 'us-east-1'\nrequests_per_second = 1e6\n"
        open_config.write_text(upstream)
        config.write_text(
            f"default_target = 'fleet'\n{upstream}{targets}"
            f"[edge.tls]\ncert = '{folder}/tls.pem'\nkey = '{folder}/tls.pem'\n"
            f"[[auth.tokens]]\nname = 'clients'\nsha256 = '{hashlib.sha256(token.encode()).hexdigest()}'\n"
            "[[allow]]\nprincipal = 'token:clients'\n"
        )
        serve = ["serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--config"]
        address = programs.enter_context(program(*serve, config))
        cut_address, cuts = cutting(address)
        (folder / "fleet.json").write_text(json.dumps(fleet(simulator)))
        environment = {
            "SSM_GATEWAY_ADDRESS": address,
            "SSM_GATEWAY_TLS_CA": str(folder / "ca.pem"),
            "SSM_GATEWAY_TOKEN_FILE": str(folder / "token"),
            "OPEN_ADDRESS": programs.enter_context(program(*serve, open_config)),
            "UNIX_ADDRESS": programs.enter_context(
                program("serve", f"--listen=unix:{folder}/socket", "--admin-listen=127.0.0.1:0", "--config", open_config)
            ),
            "CUT_ADDRESS": cut_address,
            "FLEET": str(folder / "fleet.json"),
        }
        yield environment, cuts


@contextlib.contextmanager
def program(*arguments):
    """Runs a command of the program, and yields the address that it prints."""
    keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    command = [ROOT / "target/debug/ssm-gateway", *arguments]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | keys
    )
    try:
        log = LOG.open("a")
        for line in child.stdout:
            log.write(line)
            if found := re.search(r"(?:nodes at |: listening addr=)(\S+)", line):
                threading.Thread(target=shutil.copyfileobj, args=(child.stdout, log), daemon=True).start()
                yield found[1]
                return
        sys.exit(f"the program does not start: see {LOG}")
    finally:
        child.kill()
        child.wait()


def steer(simulator, region, faults):
    url = f"{simulator}/_simulator/faults?account={ACCOUNT}&region={region}"
    headers = {"content-type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(faults).encode(), headers, method="PUT")).close()


def fleet(simulator):
    """Returns the nodes that boto3 reads, as ProtoJSON."""

    def as_json(time):
        precision = "milliseconds" if time.microsecond else "seconds"
        return time.astimezone(timezone.utc).isoformat(timespec=precision).replace("+00:00", "Z")

    nodes = read_by_boto3(simulator)
    assert len(nodes) == NODES
    return json.loads(json.dumps(nodes, default=as_json))


def cutting(address):
    """Returns an address whose connections to `address` break after CUT_AFTER bytes to the client, and the list of their times."""
    listener, cuts = socket.create_server(("127.0.0.1", 0)), []

    def pass_on(source, sink, most):
        with contextlib.suppress(OSError):
            while most > 0 and (some := source.recv(min(65536, most))):
                sink.sendall(some)
                most -= len(some)
        if most == 0:
            cuts.append(time.monotonic())
        for end in [source, sink]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept():
        host, port = address.rsplit(":", 1)
        while True:
            client, _ = listener.accept()
            if cuts and time.monotonic() - cuts[0] < OUTAGE:
                client.close()
                continue
            server = socket.create_connection((host, int(port)))
            for ends in [(client, server, float("inf")), (server, client, CUT_AFTER)]:
                threading.Thread(target=pass_on, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}", cuts
