// The client against a running gateway, which `clients/test` starts.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { status, type ServiceError } from "@grpc/grpc-js";
import { InstanceInformation } from "../gen/ssm_gateway/v1/instance_information.js";
import type { StreamInstanceInformationResponse } from "../gen/ssm_gateway/v1/instance_information_service.js";
import { connect, explain, pages, stream } from "./nodes.js";

const environment = (name: string): string => {
  const value = process.env[name];
  assert(value, `${name} is not set`);
  return value;
};
const CA = readFileSync(environment("SSM_GATEWAY_TLS_CA"));
const TOKEN = readFileSync(environment("SSM_GATEWAY_TOKEN_FILE"), "utf8");
// What boto3 reads.
const FLEET = JSON.parse(readFileSync(environment("FLEET"), "utf8"));

const gateway = connect(environment("SSM_GATEWAY_ADDRESS"), CA, TOKEN);
after(() => gateway.close());

const all = async <Item>(read: AsyncIterable<Item>): Promise<Item[]> => {
  const items = [];
  for await (const item of read) {
    items.push(item);
  }
  return items;
};

/** Writes times as ProtoJSON does: without the milliseconds of whole seconds. */
const json = (nodes: InstanceInformation[]): unknown[] =>
  nodes.map((node) => JSON.parse(JSON.stringify(InstanceInformation.toJSON(node)).replaceAll(".000Z", "Z")));

const nodes = async (read: AsyncIterable<StreamInstanceInformationResponse>): Promise<InstanceInformation[]> =>
  (await all(read)).flatMap((page) => page.instanceInformationList);

const failure = async (read: AsyncIterable<unknown>): Promise<ServiceError> => {
  try {
    await all(read);
  } catch (error) {
    return error as ServiceError;
  }
  return assert.fail("it did not fail");
};

test("pages", async () => {
  assert.deepEqual(json(await all(pages(gateway, 10_000))), FLEET);
});

test("stream", async () => {
  assert.deepEqual(json(await nodes(stream(gateway, 10_000))), FLEET);
});

test("cut", async () => {
  // Each connection breaks before half of a fleet, and for a while after the first every connection is closed.
  const cut = connect(environment("CUT_ADDRESS"), CA, TOKEN);
  const fleets = { fleet: [] as InstanceInformation[], other: [] as InstanceInformation[] };
  const reasons = new Map<string, string>();
  for await (const page of stream(cut, 30_000, { targets: ["fleet", "other", "denied"] })) {
    if (page.unreachable) {
      reasons.set(page.target, page.unreachable.reason);
    } else {
      fleets[page.target as keyof typeof fleets].push(...page.instanceInformationList);
    }
  }
  cut.close();
  assert.deepEqual(json(fleets.fleet), FLEET);
  assert.equal(fleets.other.length, FLEET.length);
  assert.equal(new Set(fleets.other.map((node) => node.instanceId)).size, FLEET.length);
  assert.deepEqual([...reasons], [["denied", "AWS_ACCESS_DENIED"]]);
});

test("slow reader", async () => {
  const large = { targets: ["large"], readOptions: { maxAge: { seconds: 0n, nanos: 0 }, maxStale: undefined } };
  let resumed: Date | undefined;
  const asked: Date[] = [];
  for await (const page of stream(gateway, 60_000, large)) {
    if (!resumed) {
      // Another reader reads a walk of the same length to its end.
      const filters = [{ key: "PlatformTypes", values: ["Linux", "Windows", "MacOS"] }];
      assert((await nodes(stream(gateway, 60_000, { ...large, filters }))).length > 10_000);
      resumed = new Date();
    }
    assert(page.asOf);
    asked.push(page.asOf);
  }
  const middle = asked[asked.length >> 1];
  assert(middle && resumed && middle > resumed, "AWS was asked for what nobody read");
});

test("wrong filter", async () => {
  const error = await failure(pages(gateway, 10_000, { filters: [{ key: "Color", values: ["red"] }] }));
  assert.equal(error.code, status.INVALID_ARGUMENT);
  assert.equal(error.details, "UnknownKey filter Key is invalid.");
  assert.deepEqual(explain(error), { reason: "VALIDATION", fields: ["filters"] });
});

test("denied", async () => {
  const error = await failure(pages(gateway, 10_000, { target: "denied" }));
  assert.equal(error.code, status.PERMISSION_DENIED);
  const { reason, retryDelay } = explain(error);
  assert.equal(reason, "AWS_ACCESS_DENIED");
  assert(retryDelay && retryDelay > 0);
});

test("throttle", async () => {
  // AWS throttles once, and advises a delay longer than all retries that ignore it would take together.
  const started = performance.now();
  assert.equal((await all(pages(gateway, 30_000, { target: "throttled-typescript" }))).length, FLEET.length);
  assert(performance.now() - started > 2000);
});

test("throttled stream", async () => {
  // The error precedes the headers of an answer; otherwise no policy would retry it.
  const started = performance.now();
  const targets = ["throttled-typescript-stream"];
  assert.equal((await nodes(stream(gateway, 30_000, { targets }))).length, FLEET.length);
  assert(performance.now() - started > 2000);
});

test("deadline", async () => {
  const started = performance.now();
  for (const read of [pages(gateway, 300, { target: "silent" }), stream(gateway, 300, { targets: ["silent"] })]) {
    assert.equal((await failure(read)).code, status.DEADLINE_EXCEEDED);
  }
  assert(performance.now() - started < 5000);
});

test("wrong token", async () => {
  const stranger = connect(environment("SSM_GATEWAY_ADDRESS"), CA, "wrong");
  const error = await failure(pages(stranger, 10_000));
  assert.equal(error.code, status.UNAUTHENTICATED);
  assert.equal(explain(error).reason, "UNAUTHENTICATED");
  stranger.close();
});
