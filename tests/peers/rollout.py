"""Calls gateways behind one round_robin client of grpcio's, by the published service config, until standard input ends: so many
unary calls a second, and streams that read slowly and go on from their last token. Prints what came of it, as JSON."""

import asyncio
import json
import sys

import grpc
from fleet import ROOT, stubs

CONFIG = (ROOT / "proto/ssm_gateway/v1/service_config.json").read_text()


class Rollout:
    def __init__(self, addresses, nodes):
        self.messages, services = stubs()
        # The authority would be the list of addresses, which is none by RFC 3986.
        options = [("grpc.service_config", CONFIG), ("grpc.default_authority", "ssm-gateway")]
        # What is on its way to a reader who is slow is little, so that streams last as long as they are read.
        options += [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65536)]
        channel = grpc.aio.insecure_channel(f"ipv4:{addresses}", options=options)
        self.service = services.InstanceInformationServiceStub(channel)
        self.nodes, self.is_over = nodes, False
        self.calls, self.failed, self.streams, self.resumed, self.wrong = 0, [], 0, 0, []

    async def call(self):
        try:
            request = self.messages.DescribeInstanceInformationRequest(max_results=50)
            page = await self.service.DescribeInstanceInformation(request)
            assert len(page.instance_information_list) == 50
        except Exception as error:
            self.failed.append(repr(error)[:300])
        self.calls += 1

    async def load(self, rate):
        loop, calls = asyncio.get_running_loop(), set()
        started, number = loop.time(), 0
        while not self.is_over:
            calls.add(task := loop.create_task(self.call()))
            task.add_done_callback(calls.discard)
            number += 1
            await asyncio.sleep(max(0, started + number / rate - loop.time()))
        await asyncio.gather(*calls)

    async def stream(self):
        while not self.is_over:
            ids, token = [], None
            while True:
                tokens = [token] if token else []
                request = self.messages.StreamInstanceInformationRequest(resume_tokens=tokens)
                try:
                    async for page in self.service.StreamInstanceInformation(request):
                        ids += [node.instance_id for node in page.instance_information_list]
                        token = page.resume_token
                        await asyncio.sleep(0.01)
                    break
                except grpc.aio.AioRpcError as error:
                    if error.code() != grpc.StatusCode.UNAVAILABLE or self.resumed > 1000:
                        self.wrong.append(repr(error)[:300])
                        return
                    self.resumed += 1
            if (len(ids), len(set(ids))) != (self.nodes, self.nodes):
                self.wrong.append(f"{len(ids)} nodes, {len(set(ids))} different")
            self.streams += 1

    async def run(self, rate):
        await self.call()
        print("calling", flush=True)
        tasks = [asyncio.create_task(self.load(rate))] + [asyncio.create_task(self.stream()) for _ in range(4)]
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        self.is_over = True
        await asyncio.gather(*tasks)
        told = ("calls", "failed", "streams", "resumed", "wrong")
        print(json.dumps({name: getattr(self, name) for name in told}), flush=True)


async def main():
    await Rollout(sys.argv[1], int(sys.argv[2])).run(int(sys.argv[3]))


asyncio.run(main())
