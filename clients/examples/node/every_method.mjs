// Calls every method of a gateway, and prints what came of it as JSON: node every_method.mjs HOST:PORT
import { status } from "@grpc/grpc-js";
import { ModelService, SynthesisService, call, details, open } from "./gateway.mjs";

const models = open(ModelService, process.argv[2]);
const synthesis = open(SynthesisService, process.argv[2]);
const found = {};

// What an error says: its status by name, and its details.
const said = (error) => ({ code: status[error.code], message: error.details, ...details(error) });
const refusal = (promise) => promise.then(() => "none", said);

const { models: listed, default_model } = await call(models, "ListModels", {});
const model = await call(models, "GetModel", {});
const { units } = await call(models, "ListUnits", { page_size: 1 });
found.models = { listed: listed.map((each) => each.name), default_model, classes: model.classes, units };

const target = model.classes[0];
const descent = { steps: 8, seed: 7 };
const generated = await call(synthesis, "Generate", { spec: { target, descent } });
const image = generated.result.pictures[0].image;
const region = { box: { x: 2, y: 2, width: 8, height: 8 } };
const unary = {
  Generate: { target, count: 2 },
  Inpaint: { image, region },
  Translate: { image, target },
  SuperResolve: { image, factor: 2 },
  SketchToImage: { image, target },
  PaintFeatures: { image, region, unit: units[0].unit },
  MaximizeClass: { image, target },
};
found.results = {};
for (const [method, spec] of Object.entries(unary)) {
  const { result } = await call(synthesis, method, { spec: { ...spec, descent }, output: { format: "IMAGE_FORMAT_WEBP" } });
  const [picture] = result.pictures;
  found.results[method] = {
    pictures: result.pictures.length,
    format: picture.image.subarray(8, 12).toString(),
    seed: result.seed,
    task: result.task.task,
    after: picture.probability_after,
  };
}
found.classified = (await call(models, "Classify", { image, top: 1 })).classes;

found.events = [];
const stream = synthesis.StreamSynthesis({ task: { generate: { target, descent: { steps: 600 } } }, previews: true });
for await (const { event, progress } of stream) {
  found.events.push(event);
  if (progress?.preview.length) found.preview = progress.preview.subarray(0, 2).toString("hex");
}

const endless = synthesis.StreamSynthesis({ task: { generate: { target, descent: { steps: 10_000 } } } });
found.cancelled = await new Promise((resolve) => {
  endless.on("data", ({ progress }) => progress && endless.cancel());
  endless.on("error", (error) => resolve(said(error)));
});

found.deadline = await refusal(
  call(synthesis, "Generate", { spec: { target, descent: { steps: 10_000 } } }, { deadline: Date.now() + 300 }));
found.badField = await refusal(call(synthesis, "Generate", { spec: { target, descent: { steps: 0 } } }));
found.noClass = await refusal(call(synthesis, "Generate", { spec: { target: `${target}x` } }));
found.noModel = await refusal(call(models, "GetModel", { model: "nobody" }));
found.noImage = await refusal(call(models, "Classify", {}));

const edit = synthesis.Edit();
const next = [
  () => edit.write({ apply: { edit_id: 5, task: { paint_features: { region, target, descent } } } }),
  () => edit.write({ apply: { edit_id: 6, task: { generate: { target: "nobody" } } } }),
  () => edit.write({ undo: {} }),
  () => edit.end(),
];
found.edit = [];
edit.write({ open: { image } });
for await (const { event, current, result, failure } of edit) {
  if (event === "frame") continue;
  found.edit.push({ event, undoable: (current ?? result)?.undoable, id: (result ?? failure)?.edit_id, code: status[failure?.code] });
  next.shift()();
}

console.log(JSON.stringify(found));
models.close();
synthesis.close();
