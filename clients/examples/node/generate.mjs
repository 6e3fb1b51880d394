// A picture with its progress: node generate.mjs [HOST:PORT] [CLASS]
import { writeFileSync } from "node:fs";
import { ModelService, SynthesisService, call, details, open } from "./gateway.mjs";

const server = process.argv[2] ?? "127.0.0.1:50051";
const models = open(ModelService, server);
const synthesis = open(SynthesisService, server);

const target = process.argv[3] ?? (await call(models, "GetModel", {})).classes[0];
const stream = synthesis.StreamSynthesis({ task: { generate: { target, descent: { seed: 1 } } }, previews: true });
try {
  for await (const { queued, progress, result } of stream) {
    if (queued) console.log(`${queued.position} ahead`);
    if (progress) console.log(`step ${progress.step} of ${progress.steps}: ${target} ${progress.probability.toFixed(2)}`);
    if (result) writeFileSync("generated.png", result.pictures[0].image);
  }
} catch (error) {
  console.error(error.details, JSON.stringify(details(error)));
  process.exitCode = 1;
}
