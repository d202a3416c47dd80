"""A crowd of peers of a gateway: `hold COUNT` connections until standard input ends, or `churn RATE SECONDS`, which opens and
drops so many a second. Half of those that churn leave in the middle of a call."""

import asyncio
import resource
import sys

FRAME = lambda kind, flags, stream, payload: (
    len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
)
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + FRAME(4, 0, 0, b"")
PATH = b"/ssm_gateway.v1.InstanceInformationService/StreamInstanceInformation"


def field(name, value):
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


HEADERS = b"\x83\x86" + field(b":path", PATH) + field(b":authority", b"a") + field(b"content-type", b"application/grpc")
CALL = FRAME(1, 4, 1, HEADERS) + FRAME(0, 1, 1, b"\0\0\0\0\0")


async def connect(host, port, number, more=b""):
    # Many addresses, since one has too few ports.
    local = f"127.0.{1 + number // 2000 % 200}.1"
    reader, writer = await asyncio.open_connection(host, port, local_addr=(local, 0))
    writer.write(GREETING + more)
    header = await asyncio.wait_for(reader.readexactly(9), 30)
    assert header[3] == 4, "the gateway's settings"
    return reader, writer


async def hold(host, port, count):
    held = []
    for start in range(0, count, 100):
        numbers = range(start, min(start + 100, count))
        held += await asyncio.gather(*(connect(host, port, number) for number in numbers))
    print("held", len(held), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for reader, writer in held:
        assert not reader.at_eof(), "none was closed"


async def visit(host, port, number, failed):
    try:
        _, writer = await connect(host, port, number, CALL if number % 2 else b"")
        writer.close()
    except Exception as error:
        failed.append(error)


async def churn(host, port, rate, seconds):
    failed, visits, loop = [], set(), asyncio.get_running_loop()
    started = loop.time()
    for number in range(rate * seconds):
        visits.add(task := loop.create_task(visit(host, port, number, failed)))
        task.add_done_callback(visits.discard)
        if (ahead := started + number / rate - loop.time()) > 0.005:
            await asyncio.sleep(ahead)
    while visits:
        await asyncio.sleep(0.01)
    print("visited", rate * seconds, "in", round(loop.time() - started, 1), "failed", len(failed), failed[:3], flush=True)


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    what = {"hold": hold, "churn": churn}[sys.argv[2]]
    asyncio.run(what(host, int(port), *map(int, sys.argv[3:])))


main()
