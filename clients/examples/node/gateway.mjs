// Stubs of a gateway's services from its .proto files, and its errors with their details.
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import protobuf from "protobufjs";

const PROTOS = process.env.PROTOS ?? fileURLToPath(new URL("../../../protos", import.meta.url));

const definition = loader.loadSync(
  ["robust_synthesis/v1/synthesis.proto", "robust_synthesis/v1/model.proto"],
  { includeDirs: [PROTOS], keepCase: true, longs: String, enums: String, defaults: true, oneofs: true },
);
const { SynthesisService, ModelService } = grpc.loadPackageDefinition(definition).robust_synthesis.v1;

// For TLS: grpc.credentials.createSsl(). For a key: metadata "authorization", "Bearer KEY".
export const open = (Service, server) =>
  new Service(server, grpc.credentials.createInsecure(), { "grpc.max_receive_message_length": -1 });
export { SynthesisService, ModelService };

// What of google/rpc/{status,error_details}.proto a caller needs.
const rpc = protobuf.parse(`
  syntax = "proto3";
  package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message BadRequest {
    message FieldViolation { string field = 1; string description = 2; }
    repeated FieldViolation field_violations = 1;
  }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }
`, { keepCase: true }).root;

// {ErrorInfo: {reason: ...}, BadRequest: {field_violations: [...]}, ...}
export function details(error) {
  const [bytes] = error.metadata?.get("grpc-status-details-bin") ?? [];
  const packed = bytes ? rpc.lookupType("google.rpc.Status").decode(bytes).details : [];
  return Object.fromEntries(packed.map((any) => {
    const type = rpc.lookupType(any.type_url.split("/").pop());
    return [type.name, type.toObject(type.decode(any.value))];
  }));
}

// A unary method as a promise.
export const call = (client, method, request, options = {}) =>
  new Promise((resolve, reject) =>
    client[method](request, new grpc.Metadata(), options, (error, response) => (error ? reject(error) : resolve(response))));
