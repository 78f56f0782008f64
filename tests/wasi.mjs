// Runs a program that was compiled for wasm32-wasip1, such as a test: node tests/wasi.mjs PROGRAM ARGUMENT…

import { readFileSync } from "node:fs";
import { WASI } from "node:wasi";

const [, , program, ...rest] = process.argv;
const wasi = new WASI({ version: "preview1", args: [program, ...rest], env: process.env, preopens: { "/": "/" } });
const { instance } = await WebAssembly.instantiate(readFileSync(program), wasi.getImportObject());
process.exitCode = wasi.start(instance);
