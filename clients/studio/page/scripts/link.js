// The WebSocket to the app: orders go out, what happens to them comes in, and orders that were lost on the way are sent again.
//
// A message is a JSON object and any number of files: 4 bytes with the length of the JSON, the JSON, the files.

const BACKOFF = [250, 500, 1000, 2000];

/** Why an order has no result; `field` is what the service calls the parameter that is wrong. */
export class Failure extends Error {
  constructor({ message, field = "", cancelled = false, retry = null }) {
    super(field ? `${field}: ${message}` : message);
    Object.assign(this, { field, cancelled, retry });
  }
}

async function packed(head, files) {
  const parts = await Promise.all(files.map((file) => file.arrayBuffer()));
  const text = new TextEncoder().encode(JSON.stringify({ ...head, files: parts.map((part) => part.byteLength) }));
  const length = new DataView(new ArrayBuffer(4));
  length.setUint32(0, text.length);
  return new Blob([length.buffer, text, ...parts]);
}

function unpacked(message) {
  const length = new DataView(message).getUint32(0);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(message, 4, length)));
  let at = 4 + length;
  const files = head.files.map((size) => new Blob([message.slice(at, (at += size))]));
  return [head, files];
}

/** Tells `state` events: its `state` is "up", or "lost" with why. */
export class Link extends EventTarget {
  #socket = null;
  #orders = new Map();
  #last = 0;
  #failures = 0;
  #timer = 0;
  #posting = Promise.resolve();

  state = "connecting";
  why = "";
  models = "";

  open() {
    const url = new URL("orders", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => this.#take(...unpacked(data));
    socket.onclose = ({ reason }) => this.#closed(reason);
    this.#socket = socket;
  }

  /** Resolves to the last event, with its `blobs`; rejects with a Failure. `order.cancel()` takes it back. */
  order(head, files = [], { onframe, onqueued, once = false } = {}) {
    this.#last += 1;
    const id = this.#last;
    const order = { head: { ...head, id }, files, onframe, onqueued, once, sent: false };
    const done = new Promise((resolve, reject) => Object.assign(order, { resolve, reject }));
    this.#orders.set(id, order);
    if (this.state === "up") this.#send(order);
    else if (once) this.#end(order, new Failure({ message: this.why, cancelled: true }));
    done.cancel = () => {
      if (!this.#orders.has(id)) return;
      if (order.sent) this.#post({ do: "cancel", id: 0, of: id }, []);
      this.#end(order, new Failure({ message: "Cancelled.", cancelled: true }));
    };
    return done;
  }

  async #send(order) {
    order.sent = true;
    await this.#post(order.head, order.files);
  }

  // Messages leave in the order in which they were posted, however long their files take to be read.
  #post(head, files) {
    const message = packed(head, files);
    this.#posting = this.#posting.then(async () => {
      const blob = await message;
      if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(blob);
    });
    return this.#posting;
  }

  #take(head, blobs) {
    if (head.event === "gateway") {
      this.models = JSON.stringify(head.models);
      this.#failures = 0;
      this.#turn(head.up ? "up" : "lost", head.why);
      return;
    }
    const order = this.#orders.get(head.id);
    if (!order) return;
    if (head.event === "frame") order.onframe?.({ ...head, blob: blobs[0] && new Blob(blobs, { type: "image/jpeg" }) });
    else if (head.event === "queued") order.onqueued?.(head);
    else if (head.event !== "failed") this.#end(order, null, { ...head, blobs });
    else if (head.lost && !order.once) this.#again(order);
    else this.#end(order, new Failure(head));
  }

  #again(order) {
    order.sent = false;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#resend(), 1000);
  }

  #resend() {
    if (this.state !== "up") return;
    for (const order of this.#orders.values()) if (!order.sent) this.#send(order);
  }

  #end(order, failure, event) {
    this.#orders.delete(order.head.id);
    if (failure) order.reject(failure);
    else order.resolve(event);
  }

  #closed(reason) {
    for (const order of this.#orders.values()) {
      order.sent = false;
      if (order.once) this.#end(order, new Failure({ message: "The connection was lost.", cancelled: true }));
    }
    this.#turn("lost", reason || "The studio's own server cannot be reached.");
    setTimeout(() => this.open(), BACKOFF[Math.min(this.#failures, BACKOFF.length - 1)]);
    this.#failures += 1;
  }

  #turn(state, why) {
    this.state = state;
    this.why = why;
    this.dispatchEvent(new Event("state"));
    this.#resend();
  }
}
