// The page: files that are dropped or chosen, and a line for each receipt. The worker verify.js computes.

const $ = (id) => document.getElementById(id);

const worker = new Worker("verify.js", { type: "module" });
const waiting = [];
worker.onmessage = ({ data }) => {
  const { resolve, reject } = waiting.shift();
  "error" in data ? reject(new Error(data.error)) : resolve(data.found);
};
worker.onerror = () => told("The module could not be loaded: this browser is too old, or verify.js is not beside the page.");

/** Have the worker do something; it answers in order. */
function ask(call, ...values) {
  worker.postMessage([call, ...values]);
  return new Promise((resolve, reject) => waiting.push({ resolve, reject }));
}

/** What is known of the model. */
function told(text) {
  $("model").textContent = text;
}

function el(tag, className, text) {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}

const seconds = (ms) => `${(ms / 1000).toFixed(2)} s`;

/** The dropped receipts: name, bytes and place in the list. */
const receipts = [];

async function openModel(name, bytes) {
  told(`Opening ${name}…`);
  try {
    const { architecture, blake3, isa, ms } = await ask("open", bytes);
    told(`Model: ${name} (${architecture}, BLAKE3 ${blake3.slice(0, 12)}…), opened in ${seconds(ms)}, computed by ${isa}.`);
  } catch (error) {
    told(`${name} cannot be used: ${error.message}`);
  }
  for (const receipt of receipts) await replay(receipt);
}

/** A verdict in words: kind, title, text. */
function verdict({ valid, error, replay, ids, ms, model }) {
  if (!valid) return ["error", "Not valid", `The receipt contradicts itself: ${error}.`];
  if (!replay) return ["error", "Not replayed", `Drop its model, ${model.file}, here.`];
  if (replay.same === null) return ["error", "Not replayed", `This model cannot compute the answer again: ${replay.error}.`];
  if (replay.same) return ["proven", "Proven", `The same ${ids} tokens, computed again in ${seconds(ms)}.`];
  if (replay.error) return ["differs", "Contradicted", `The model or the prompt contradicts it: ${replay.error}.`];
  const { first_difference: first, claimed, found } = replay;
  let text = "The model gives another answer.";
  if (first !== null && claimed === found) text = "The tokens are the same, but the answer does not end as claimed.";
  else if (first !== null) text = `At index ${first} of the answer it claims ${claimed ?? "no token"}, the model gives ${found ?? "none"}.`;
  return ["differs", "Differs", `${text} It took ${seconds(ms)}.`];
}

async function replay(receipt) {
  const { name, bytes, item } = receipt;
  item.className = "";
  item.replaceChildren(el("div", "file", name), el("span", "text", "Computing the answer again…"));
  let kind = "error", title = "Not replayed", text, found = {};
  try {
    found = await ask("replay", bytes);
    [kind, title, text] = verdict(found);
  } catch (error) {
    text = error.message;
  }
  const parts = [el("div", "file", name), el("strong", "verdict", title), " ", el("span", "text", text)];
  if (found.digest) parts.push(el("div", "digest", found.digest));
  if (kind === "proven") parts.push(el("div", "told", `Told, not proven: ${found.replay.not_checked.join(", ")}.`));
  item.replaceChildren(...parts);
  item.className = kind;
}

async function take(files) {
  const models = files.filter((file) => file.name.endsWith(".gguf"));
  for (const file of files.filter((file) => !models.includes(file))) {
    const receipt = { name: file.name, bytes: new Uint8Array(await file.arrayBuffer()), item: el("li") };
    receipts.push(receipt);
    $("results").append(receipt.item);
    if (!models.length) await replay(receipt);
  }
  for (const model of models.slice(-1)) {
    try {
      await openModel(model.name, new Uint8Array(await model.arrayBuffer()));
    } catch (error) {
      told(`${model.name} cannot be read: ${error.message}`);
    }
  }
}

$("files").addEventListener("change", ({ target }) => {
  const files = [...target.files];
  target.value = "";
  take(files);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take([...event.dataTransfer.files]);
  });
}

/** Loads the module, and the model beside the page if there is one. */
async function start() {
  try {
    await ask("load", "bitnet.wasm");
  } catch (error) {
    return told(`The module is missing (${error.message}): \`make wasm\` builds it and puts it beside this page.`);
  }
  const trit = await fetch("trit.gguf");
  if (trit.ok) await openModel("trit.gguf", new Uint8Array(await trit.arrayBuffer()));
  else told("No model yet: drop one here.");
}
start();
