// An order that makes a picture: the way there, and what it becomes, with all that it takes to make it again.

import { Entry } from "./pictures.js";

/** Of the way there. */
const FRAMES = 24;

/** Resolves to an Entry; rejects with a Failure. `cancel()` takes it back.
 *
 * `files` are { image?, mask? }, `own` is the image's name where it is the visitor's, and `start` an Entry: the way begins with it.
 */
export function making(link, model, task, { files = {}, options = {}, own = "", start = null, onqueued, onframe }) {
  const frames = start ? [start.blob] : [];
  const head = {
    do: "make",
    model: model.name,
    options: { size: model.size, ...options },
    task,
    frames: FRAMES,
    with: Object.keys(files),
  };
  const order = link.order(head, Object.values(files), {
    onqueued,
    onframe: (event) => {
      if (event.blob) frames.push(event.blob);
      onframe(event);
    },
  });
  const made = order.then(({ report, blobs }) => {
    const blob = new Blob(blobs, { type: "image/png" });
    const edits = [{ report, mask: files.mask }];
    const recipe = { model: model.name, picture: files.image ?? null, own, edits };
    if (!options.paste_back) frames.push(blob); // a whole photo is of another size than the way
    return Entry.of(blob, { recipe, report, frames });
  });
  return Object.assign(made, { cancel: order.cancel });
}

/** Of a task's L2 ball; null where it has another one, or none. */
export function radius(task, model) {
  const { norm, epsilon } = { ...model.defaults[task.task], ...task };
  return norm === "l2" ? epsilon : null;
}

/** Once all orders have ended, the first failure of one is raised, if it was not the visitor who stopped it. */
export async function all(orders) {
  const ends = await Promise.allSettled(orders);
  const failed = ends.find(({ status, reason }) => status === "rejected" && !reason.cancelled);
  if (failed) throw failed.reason;
}
