// Replays receipts with the core compiled to WebAssembly. The module imports nothing, so it can only compute. The page
// runs this file as a worker; a program for node imports it (tests/replay.mjs).

/** A module with a model, for replays of receipts. */
export class Verifier {
  /** From the bytes of `bitnet.wasm`. */
  static async load(bytes) {
    return new Verifier(await WebAssembly.compile(bytes));
  }

  constructor(module) {
    this.module = module;
    this.exports = null;
  }

  /** Opens a model (a GGUF file as bytes). Returns its architecture, its BLAKE3 and the instruction set. */
  async open(model, isa = ~0) {
    Object.assign(this, { model: null, isa });
    await this.#start();
    const opened = this.#call("bitnet_open", model, isa);
    this.model = model;
    return opened;
  }

  /** Validates a receipt (JSON as bytes) and computes its answer again, if a model is open. */
  async replay(receipt) {
    if (!this.exports) await (this.model ? this.open(this.model, this.isa) : this.#start());
    return this.#call("bitnet_replay", receipt);
  }

  async #start() {
    this.exports = (await WebAssembly.instantiate(this.module, {})).exports;
  }

  #call(name, input, ...more) {
    const { memory, bitnet_input, bitnet_output, bitnet_output_len, [name]: call } = this.exports;
    const read = () => JSON.parse(new TextDecoder().decode(new Uint8Array(memory.buffer, bitnet_output(), bitnet_output_len())));
    const start = bitnet_input(input.length);
    if (!start) throw new Error(`a tab has no memory for ${input.length} bytes`);
    new Uint8Array(memory.buffer, start, input.length).set(input);
    try {
      call(...more);
    } catch (trap) {
      const told = read();
      this.exports = null; // what a trap leaves behind is in no order
      throw new Error(`the module stopped (${trap.message}): ${told.error ?? "it ran out of memory or stack"}`);
    }
    const found = read();
    if (found.error && found.valid === undefined) throw new Error(found.error);
    return found;
  }
}

/** What the page may ask of the worker: each answers with an object and the time that it took. */
const calls = {
  async load(url) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${url}: ${response.status}`);
    calls.verifier = await Verifier.load(await response.arrayBuffer());
  },
  open: (model) => calls.verifier.open(model),
  replay: (receipt) => calls.verifier.replay(receipt),
};

if (globalThis.WorkerGlobalScope) {
  let last = Promise.resolve();
  const answer = async ([call, ...values]) => {
    const start = performance.now();
    try {
      const found = await calls[call](...values);
      postMessage({ found: { ...found, ms: performance.now() - start } });
    } catch (error) {
      postMessage({ error: error.message });
    }
  };
  onmessage = ({ data }) => (last = last.then(() => answer(data)));
}
