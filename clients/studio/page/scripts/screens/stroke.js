// A stroke of the brush: what it covers, how much of that is still wet, and the edits that it was made of.

export class Stroke {
  /** `settings` are the task's, with the steps that each part of it gets. */
  constructor(brush, mask, settings) {
    Object.assign(this, { brush, mask, settings, steps: settings.steps });
    this.down = true;
    this.over = false;
    this.full = false;
    this.edits = [];
    this.order = null;
  }

  begin(start) {
    Object.assign(this, { start, blob: start.blob, bitmap: start.bitmap, frames: [start.blob] });
  }

  /** It stays in an L2 ball. */
  get round() {
    return this.settings.norm === "l2";
  }

  /** Steps that it still has to do now. */
  get left() {
    return this.full ? 0 : this.mask.thirst(this.steps);
  }

  get done() {
    return this.over || (!this.left && !this.down);
  }

  /** It covers more. */
  grow() {
    this.full = false;
    this.wake?.();
  }

  lift() {
    this.down = false;
    this.wake?.();
  }

  /** Leave off after the edit that is under way, because the next stroke has begun. */
  finish() {
    this.grow = () => {};
    this.full = true;
    this.lift();
  }

  /** Forget it. */
  abandon() {
    this.over = true;
    this.order?.cancel();
    this.wake?.();
  }

  /** Until there is something to do, or nothing will be. */
  more() {
    return new Promise((resolve) => (this.wake = resolve));
  }
}
