// A client of ssm-gateway, to be copied into a service.
//
// As a program it prints the nodes that are online.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { credentials, Metadata, status, type ServiceError } from "@grpc/grpc-js";
import { BadRequest, ErrorInfo, RetryInfo } from "../gen/google/rpc/error_details.js";
import { Status } from "../gen/google/rpc/status.js";
import type { InstanceInformation } from "../gen/ssm_gateway/v1/instance_information.js";
import {
  DescribeInstanceInformationRequest,
  type DescribeInstanceInformationResponse,
  InstanceInformationServiceClient,
  StreamInstanceInformationRequest,
  type StreamInstanceInformationResponse,
} from "../gen/ssm_gateway/v1/instance_information_service.js";

/** Round robin over replicas, time-outs, and retries of errors that are safe to retry. */
const SERVICE_CONFIG = new URL("../../gen/service_config.json", import.meta.url);

/**
 * Connects to a gateway. With `ca` or a token it uses TLS and trusts `ca`, or else Node's authorities; a token authenticates each
 * call. With neither, the connection is not encrypted.
 */
export function connect(address: string, ca?: Buffer, token?: string): InstanceInformationServiceClient {
  let channel = ca || token ? credentials.createSsl(ca) : credentials.createInsecure();
  if (token) {
    const metadata = new Metadata();
    metadata.set("authorization", `Bearer ${token}`);
    const bearer = credentials.createFromMetadataGenerator((_, callback) => callback(null, metadata));
    channel = credentials.combineChannelCredentials(channel, bearer);
  }
  const options = {
    "grpc.service_config": readFileSync(SERVICE_CONFIG, "utf8"),
    // Detects a connection that no longer answers.
    "grpc.keepalive_time_ms": 60_000,
    "grpc.keepalive_timeout_ms": 20_000,
  };
  return new InstanceInformationServiceClient(address, channel, options);
}

type Unary<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: { deadline: number },
  callback: (error: ServiceError | null, response: Response) => void,
) => unknown;

/** Makes a call with a timeout in milliseconds. */
function call<Request, Response>(method: Unary<Request, Response>, request: Request, timeout: number): Promise<Response> {
  return new Promise((resolve, reject) =>
    method(request, new Metadata(), { deadline: Date.now() + timeout }, (error, response) =>
      error ? reject(error) : resolve(response),
    ),
  );
}

/** Yields all nodes. Makes one call per page, each with a timeout in milliseconds. */
export async function* pages(
  client: InstanceInformationServiceClient,
  timeout: number,
  asked: Partial<DescribeInstanceInformationRequest> = {},
): AsyncGenerator<InstanceInformation> {
  const request = DescribeInstanceInformationRequest.fromPartial({ maxResults: 50, ...asked });
  const describe: Unary<DescribeInstanceInformationRequest, DescribeInstanceInformationResponse> =
    client.describeInstanceInformation.bind(client);
  do {
    const page = await call(describe, request, timeout);
    yield* page.instanceInformationList;
    request.nextToken = page.nextToken;
  } while (request.nextToken);
}

/**
 * Yields all pages of all targets, within `timeout` milliseconds, and resumes a stream that breaks off. Sets the request's resume
 * tokens itself.
 *
 * A slow reader slows the walk: the gateway sends, and fetches from AWS, little more than what the reader reads. A page may have
 * the reason why its target is `unreachable` in place of nodes.
 */
export async function* stream(
  client: InstanceInformationServiceClient,
  timeout: number,
  asked: Partial<StreamInstanceInformationRequest> = {},
): AsyncGenerator<StreamInstanceInformationResponse> {
  const deadline = Date.now() + timeout;
  const tokens = new Map<string, string>();
  while (true) {
    const request = StreamInstanceInformationRequest.fromPartial({ ...asked, resumeTokens: [...tokens.values()] });
    // A stream that has begun waits for a gateway; the first call fails after the attempts of the service config.
    const metadata = new Metadata({ waitForReady: tokens.size > 0 });
    const messages = client.streamInstanceInformation(request, metadata, { deadline });
    let hasBegun = false;
    try {
      for await (const page of messages as AsyncIterable<StreamInstanceInformationResponse>) {
        hasBegun = true;
        yield page;
        tokens.set(page.target, page.resumeToken);
      }
      return;
    } catch (error) {
      if (!hasBegun || (error as ServiceError).code !== status.UNAVAILABLE) {
        throw error;
      }
    } finally {
      messages.cancel();
    }
  }
}

/** The details of an error. */
export interface Problem {
  reason: string;
  fields: string[];
  /** In milliseconds. */
  retryDelay?: number;
}

/** Decodes the details of an error. An error that does not come from the gateway has none. */
export function explain(error: ServiceError): Problem {
  const problem: Problem = { reason: "", fields: [] };
  for (const details of error.metadata?.get("grpc-status-details-bin") ?? []) {
    for (const { typeUrl, value } of Status.decode(details as Buffer).details) {
      switch (typeUrl) {
        case "type.googleapis.com/google.rpc.ErrorInfo":
          problem.reason = ErrorInfo.decode(value).reason;
          break;
        case "type.googleapis.com/google.rpc.BadRequest":
          problem.fields = BadRequest.decode(value).fieldViolations.map((violation) => violation.field);
          break;
        case "type.googleapis.com/google.rpc.RetryInfo": {
          const { retryDelay } = RetryInfo.decode(value);
          problem.retryDelay = Number(retryDelay?.seconds ?? 0) * 1000 + (retryDelay?.nanos ?? 0) / 1e6;
        }
      }
    }
  }
  return problem;
}

async function printOnline(): Promise<void> {
  const { SSM_GATEWAY_ADDRESS: address, SSM_GATEWAY_TLS_CA: ca, SSM_GATEWAY_TOKEN_FILE: token } = process.env;
  const client = connect(
    address ?? "127.0.0.1:50051",
    ca ? readFileSync(ca) : undefined,
    token ? readFileSync(token, "utf8").trim() : undefined,
  );
  try {
    for await (const page of stream(client, 60_000, { filters: [{ key: "PingStatus", values: ["Online"] }] })) {
      if (page.unreachable) {
        console.error(`${page.target} is unreachable: ${page.unreachable.message}`);
      }
      for (const node of page.instanceInformationList) {
        console.log(node.instanceId, node.platformName);
      }
    }
  } catch (error) {
    console.error((error as ServiceError).message, explain(error as ServiceError));
    process.exitCode = 1;
  } finally {
    client.close();
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  await printOnline();
}
