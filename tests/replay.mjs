// Replays receipts in node: node tests/replay.mjs MODULE MODEL RECEIPT… prints a line of JSON for the model and for each
// receipt.

import { readFileSync } from "node:fs";
import { Verifier } from "../docs/verify/verify.js";

const [, , module, model, ...receipts] = process.argv;
const verifier = await Verifier.load(readFileSync(module));
const timed = async (work) => {
  const start = performance.now();
  return { ...(await work()), ms: performance.now() - start };
};
const isa = Number(process.env.BITNET_ISA ?? ~0);
console.log(JSON.stringify(await timed(() => verifier.open(readFileSync(model), isa))));
for (const receipt of receipts) console.log(JSON.stringify(await timed(() => verifier.replay(readFileSync(receipt)))));
