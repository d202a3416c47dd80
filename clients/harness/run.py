"""Runs the clients' tests in all languages, or in those given, and prints one line per language and case."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from gateway import LOG, ROOT, gateway

CASES = [
    "pages",
    "stream",
    "cut",
    "slow reader",
    "wrong filter",
    "denied",
    "throttle",
    "throttled stream",
    "deadline",
    "wrong token",
    "program",
]
# The command that installs and generates, the command that runs the tests, the pattern of a case in its output, and the program.
LANGUAGES = {
    "python": (
        "python3 -m venv .venv && .venv/bin/pip install -qr test-requirements.txt && PYTHON=.venv/bin/python ./generate",
        ".venv/bin/pytest -v",
        r"::test_(?P<case>\w+) (?P<passed>PASSED)?",
        ".venv/bin/python nodes.py",
    ),
    "go": (
        "go generate && go vet",
        "go test -v -count=1",
        r"^--- (?P<passed>PASS)?.*: Test(?P<case>\w+)",
        "go run .",
    ),
    "typescript": (
        "npm ci && npm run generate && npm run build",
        "npm test",
        r"^(?:not |(?P<passed>))ok \d+ - (?P<case>.+)$",
        "npm start --silent",
    ),
    "java": (
        "mvn --batch-mode --quiet test-compile",
        "mvn --batch-mode --no-transfer-progress test",
        r"NodesTest\.(?P<case>\w+) -- Time elapsed: \S+ s(?P<passed>$)?",
        "mvn --batch-mode --quiet exec:java",
    ),
    "rust": (
        "cargo test --locked --no-run",
        "cargo test --locked",
        r"^test (?P<case>\w+) \.\.\. (?P<passed>ok)?",
        "cargo run --locked --quiet",
    ),
}
# The longest that one command may take, in seconds; those that install packages take less.
PATIENCE = 900


def run(command, language, environment):
    """Runs a command in the language's folder. Returns whether it succeeded, its standard output, and all its output."""
    # The tools that a developer has on the PATH.
    path = f"{ROOT}/.tools/maven/bin:{ROOT}/.tools/venv/bin:{os.environ['PATH']}"
    child = subprocess.Popen(
        command,
        shell=True,
        cwd=ROOT / "clients" / language,
        env=os.environ | environment | {"PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        printed, said = child.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        printed, said = child.communicate()
        said += f"\nthe command took more than {PATIENCE} s"
    return child.returncode == 0, printed, f"$ {command}\n{printed}{said}"


def words(name):
    """Writes `slow_reader`, `SlowReader` and `slowReader` as `slow reader`."""
    return re.sub(r"_|(?<=[a-z])(?=[A-Z])", " ", name).strip().lower()


def try_program(command, language, environment):
    """Returns whether the program prints each online node, with TLS and a token, and without; and all its output."""
    fleet = json.loads(Path(environment["FLEET"]).read_text())
    online = [node["InstanceId"] for node in fleet if node.get("PingStatus") == "Online"]
    all_said, is_right = "", True
    for variables in [environment, {"SSM_GATEWAY_ADDRESS": environment["OPEN_ADDRESS"]}]:
        succeeded, printed, said = run(command, language, variables)
        is_right = is_right and succeeded and [line.partition(" ")[0] for line in printed.splitlines()] == online
        all_said += said
    return is_right, all_said


def test(language, environment, cuts):
    """Prints one line per case, and returns how many of them passed."""
    prepare, command, pattern, program = LANGUAGES[language]
    cuts.clear()
    passed = set()
    succeeded, _, said = run(prepare, language, environment)
    if succeeded:
        succeeded, printed, said = run(command, language, environment)
        passed = {
            words(match["case"]) for match in re.finditer(pattern, printed, re.MULTILINE) if match["passed"] is not None
        }
        # Two fleets take at least four cuts, because a connection carries less than half of one.
        if len(cuts) < 4:
            passed.discard("cut")
        is_right, said_by_program = try_program(program, language, environment)
        passed |= {"program"} if is_right else set()
        said += said_by_program
    if not succeeded and passed == set(CASES):
        passed.clear()
    if passed != set(CASES):
        print(f"{said}\n{len(cuts)} connections were cut; the gateway's log: {LOG}")
    for case in CASES:
        print(f"{language:<12}{case:<18}{'ok' if case in passed else 'FAILED'}", flush=True)
    return len(passed & set(CASES))


# An exit by exception also ends the programs that were started.
signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
languages = sys.argv[1:] or list(LANGUAGES)
if unknown := set(languages) - set(LANGUAGES):
    sys.exit(f"no client in {', '.join(unknown)}: there are {', '.join(LANGUAGES)}")
with gateway(languages) as (environment, cuts):
    passed = sum(test(language, environment, cuts) for language in languages)
failed = len(languages) * len(CASES) - passed
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
