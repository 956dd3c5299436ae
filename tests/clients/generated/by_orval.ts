// Predicts with the functions that orval has made.
import { readFileSync } from "node:fs";
import { predictKinds, predictNotes, predictNumbers } from "./api";
import type { KindsRow, NotesRow, NumbersRow } from "./api";

type Rows = { numbers: NumbersRow[]; kinds: KindsRow[]; notes: NotesRow[] };
const given: { url: string; rows: Rows } = JSON.parse(readFileSync(0, "utf8"));
const send = globalThis.fetch;
globalThis.fetch = (path, options) => send(given.url + path, options); // the functions have paths without a host

function predictions(answer: { status: number; data: unknown }): unknown {
  if (answer.status !== 200) throw new Error(JSON.stringify(answer.data));
  return (answer.data as { predictions: unknown }).predictions;
}

async function main() {
  const { numbers, kinds, notes } = given.rows;
  const answers = {
    numbers: predictions(await predictNumbers({ instances: numbers })),
    kinds: predictions(await predictKinds({ instances: kinds })),
    notes: predictions(await predictNotes({ instances: notes })),
  };
  console.log(JSON.stringify(answers));
}
main();
