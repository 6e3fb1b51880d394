// Paint with features: while the brush moves, short edits follow each other, each from the picture that the last one left.
//
// What a stroke covers stays wet until it has had the card's steps. The stroke stays inside a ball around the picture
// before it, whose radius is the card's times the strength, and grows with the root of the area, so that its depth is
// the same everywhere.

import { Advanced } from "../advanced.js";
import { BrushChooser } from "../choosers.js";
import { Slider } from "../fields.js";
import { Entry, distance, within } from "../pictures.js";
import { Brush, Outside } from "./brush.js";
import { Screen } from "./screen.js";
import { Stroke } from "./stroke.js";

/** Milliseconds that one edit should take: what is under the brush is at most so old. */
const PACE = 160;
/** Share of the picture that the card's epsilon is for. */
const SHARE = 1 / 8;
/** How often a stroke's steps, in a straight line, would reach the ball's edge. */
const REACH = 1.5;

export class Paint extends Screen {
  static id = "paint";
  static name = "Paint";
  static title = "Paint with features";
  static hint = "Pick a feature or a class, and paint: the picture changes under the brush.";
  static picture = "paint";

  square = true;

  #strokes = new Set();
  #stroke = null;
  #running = Promise.resolve();
  #ours = false;
  #millisecondsPerStep = 20;

  constructor(studio) {
    const brush = new Brush(studio);
    const chooser = new BrushChooser({ units: (model) => studio.units(model) });
    const strength = new Slider("strength", "Strength", {
      min: 0.25,
      max: 3,
      step: 0.05,
      value: 1,
      show: (value) => `${Math.round(100 * value)} %`,
    });
    const outside = new Outside();
    const advanced = new Advanced(outside.pull);
    const fields = [chooser, ...brush.fields, strength, outside.pull, ...advanced.all];
    super(
      studio,
      fields,
      chooser.element,
      ...brush.fields.map((field) => field.element),
      strength.element,
      outside.element,
      advanced.element,
    );
    Object.assign(this, { brush, chooser, strength, outside, advanced });
    this.resizedByKeys(brush.size);
  }

  useModel(model) {
    this.defaults = model.defaults.paint_features;
    this.advanced.use(model, "paint_features");
    this.outside.pull.usual = this.defaults.penalty;
    this.brush.scale(model.size);
    this.chooser.use(model);
  }

  changed() {
    if (this.#ours) return;
    this.stop();
    this.brush.renew();
    const tool = {
      cursor: () => this.brush.cursor,
      start: (point) => this.#start(point),
      move: (point) => this.#move(point),
      end: () => this.#end(),
    };
    this.studio.easel.use(this.studio.pictures.present ? tool : null, "Paint with what is chosen.");
  }

  stop() {
    for (const stroke of this.#strokes) stroke.abandon();
  }

  #start(point) {
    this.failures.clear();
    const { brush } = this.chooser;
    if (!brush) {
      this.failures.show({ message: "The features are still being loaded; wait a moment." });
      return;
    }
    let settings;
    try {
      settings = { ...this.#usual, ...this.advanced.values, ...this.outside.values };
    } catch (failure) {
      this.failures.show(failure);
      return;
    }
    this.#stroke?.finish();
    this.brush.renew();
    this.brush.draw(point, { first: true });
    const stroke = new Stroke(brush, this.brush.mask, settings);
    this.#stroke = stroke;
    this.#strokes.add(stroke);
    this.#running = this.#running.then(() => this.#run(stroke));
  }

  #move(point) {
    if (!this.#stroke?.down) return;
    if (this.brush.draw(point) > 0) this.#stroke.grow();
  }

  #end() {
    this.#stroke?.lift();
  }

  /** What a stroke needs of the card. */
  get #usual() {
    const { steps, norm, epsilon } = this.advanced.usual;
    return { steps, norm, epsilon };
  }

  async #run(stroke) {
    const { studio } = this;
    try {
      if (stroke.over) return;
      stroke.begin(await studio.squared(studio.pictures.present));
      studio.begin(stroke.brush.target ?? "");
      while (!stroke.done) {
        if (!stroke.left) await stroke.more();
        else await this.#edit(stroke);
      }
    } catch (failure) {
      this.failures.show(failure);
    } finally {
      this.#strokes.delete(stroke);
      if (stroke.mask === this.brush.mask) this.brush.hide();
      if (stroke.over || !stroke.edits.length) studio.settle();
      else await this.#keep(stroke);
    }
  }

  /** As many steps as fit into the pace. */
  async #edit(stroke) {
    const { studio } = this;
    const steps = Math.max(1, Math.min(stroke.left, Math.round(PACE / this.#millisecondsPerStep)));
    const wet = stroke.mask.wet(stroke.steps);
    const [radius, depth, room] = this.#room(stroke, wet);
    if (stroke.round && room < 0.02 * depth) {
      stroke.full = true;
      return;
    }
    const task = this.#task(stroke, steps, depth, room);
    const ball = stroke.round ? radius : null;
    const mask = await wet.file();
    const under = stroke.bitmap;
    const compose = (bitmap) => (task.hard_mask ? within(stroke.mask, bitmap, under) : bitmap);
    const asked = performance.now();
    stroke.order = studio.link.order({ do: "edit", ...studio.frame, task }, [stroke.blob, mask], {
      onframe: ({ blob }) =>
        blob && !stroke.over && studio.preview(blob, { start: stroke.start.bitmap, radius: ball, compose }),
    });
    const { report, blobs } = await stroke.order;
    this.#millisecondsPerStep = (performance.now() - asked) / (steps + 1);
    stroke.mask.soak(wet, steps);
    this.brush.show();
    stroke.blob = new Blob(blobs, { type: "image/png" });
    stroke.bitmap = await createImageBitmap(stroke.blob);
    stroke.edits.push({ report, mask });
    stroke.frames.push(stroke.blob);
    if (!stroke.over) this.#show(stroke, report.pictures[0].losses, ball);
  }

  /** Radius of the stroke's ball, that of its wet part, and how far that part may go: what is dry has used some of the ball. */
  #room({ mask, start, bitmap, settings }, wet) {
    const [radius, depth] = [mask, wet].map((part) => this.#radius(part, settings.epsilon));
    const [used, here] = [distance(start.bitmap, bitmap), distance(start.bitmap, bitmap, wet)];
    const left = Math.sqrt(Math.max(0, radius ** 2 - used ** 2 + here ** 2));
    return [radius, depth, Math.min(depth, left) - here];
  }

  /** Of an edit whose own depth is that of a ball of `radius`, and which may go `epsilon` far. */
  #task(stroke, steps, radius, epsilon) {
    const { settings } = stroke;
    const lengths = { epsilon, step_size: settings.step_size ?? (REACH * radius) / settings.steps };
    return {
      task: "paint_features",
      ...stroke.brush,
      ...settings,
      ...(stroke.round ? lengths : {}),
      steps,
      strength: this.defaults.strength * this.strength.number,
    };
  }

  /** Of the ball that a stroke stays in. */
  #radius(mask, epsilon) {
    const share = mask.area / mask.side ** 2;
    return this.strength.number * epsilon * Math.sqrt(share / SHARE);
  }

  #show(stroke, losses, radius) {
    const { studio } = this;
    studio.easel.show(stroke.bitmap);
    studio.inside.add(...losses.slice(stroke.edits.length > 1 ? 1 : 0));
    const way = radius === null ? null : distance(stroke.start.bitmap, stroke.bitmap);
    stroke.ball = [way, radius];
    studio.inside.ball(...stroke.ball);
    studio.inside.classify(studio.model, stroke.blob);
  }

  /** The stroke is done, and its picture the present one. */
  async #keep({ brush, start, edits, frames, blob, ball }) {
    const recipe = { model: this.studio.model.name, picture: start.blob, own: "", edits };
    const inside = { target: brush.target ?? "", losses: [...this.studio.inside.losses], ball };
    const entry = await Entry.of(blob, { recipe, report: edits.at(-1).report, frames, inside });
    this.#ours = true;
    this.studio.pictures.push(entry);
    this.#ours = false;
  }
}
