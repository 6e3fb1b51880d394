// A result as the commands, or the Python program, that make it again.
//
// A recipe is { model, picture, own, edits }: where it starts (a file; `own` is its name where it is the visitor's), and
// the edits one after the other, each { report, mask }, as the service reports what really ran.

const HIDDEN = new Set(["box", "paste_back", "fit", "size"]);

async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return btoa(text);
}

function quoted(text) {
  return /^[\w.,/-]+$/.test(text) ? String(text) : `'${String(text).replaceAll("'", `'\\''`)}'`;
}

function flag(name, value) {
  const dashed = name.replaceAll("_", "-");
  if (name === "target") return `--class ${quoted(value)}`;
  if (name === "use_best") return value ? "" : "--last";
  if (name === "hard_mask") return value ? "--hard-mask" : "--no-hard-mask";
  if (typeof value === "boolean") return value ? `--${dashed}` : "";
  return `--${dashed} ${quoted(value)}`;
}

function parameters(report) {
  return Object.entries(report.parameters).filter(([name, value]) => value !== null && !HIDDEN.has(name));
}

function verb(report) {
  return report.task.replaceAll("_", "-");
}

function geometry(report) {
  const { size, fit, paste_back: paste } = report.parameters;
  const found = { size };
  if (fit) found.fit = fit;
  if (paste) found.paste_back = true;
  return Object.entries(found);
}

/** For a shell. */
export async function command({ model, picture, own, edits }) {
  const lines = [];
  let from = own || "picture.png";
  if (picture && !own) lines.push(`base64 -d > picture.png <<< ${await base64(picture)}`);
  for (const [i, { report, mask }] of edits.entries()) {
    const to = i === edits.length - 1 ? "result.png" : `step-${i + 1}.png`;
    const words = ["robust-synthesis", verb(report)];
    if (picture) words.push(quoted(from));
    if (mask) {
      lines.push(`base64 -d > mask-${i + 1}.png <<< ${await base64(mask)}`);
      words.push(`--mask mask-${i + 1}.png`);
    }
    words.push(`--model ${quoted(model)}`);
    words.push(...[...parameters(report), ...geometry(report)].map(([name, value]) => flag(name, value)));
    lines.push(`${words.filter(Boolean).join(" ")} -o ${to}`);
    from = to;
  }
  return `${lines.join("\n")}\n`;
}

function python_(value) {
  if (typeof value === "boolean") return value ? "True" : "False";
  return JSON.stringify(value);
}

function keywords(pairs) {
  return pairs.map(([name, value]) => `${name}=${python_(value)}`).join(", ");
}

/** For Python, with the library or a client. */
export async function python({ model, picture, own, edits }) {
  const lines = [
    "import base64",
    "",
    "import robust_synthesis",
    "",
    `maker = robust_synthesis.load(${python_(model)})  # or robust_synthesis.client.Client("HOST:PORT", model=${python_(model)})`,
  ];
  if (picture) lines.push(own ? `picture = ${python_(own)}` : `picture = base64.b64decode("${await base64(picture)}")`);
  for (const { report, mask } of edits) {
    const given = [];
    if (picture) given.push("picture");
    if (mask) given.push(`base64.b64decode("${await base64(mask)}")`);
    given.push(keywords([...parameters(report), ...geometry(report)]));
    lines.push(`result = maker.${report.task}(${given.join(", ")})`);
    if (picture && edits.length > 1) lines.push("picture = result.image");
  }
  lines.push('result.save("result.png")');
  const used = lines.some((line) => line.includes("base64.b64decode"));
  return `${lines.slice(used ? 0 : 2).join("\n")}\n`;
}
