// fetch of Node.js and axios: JSON rows and columns of V1, tensors of V2, and MLflow's records.
import axios from "axios";

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const given = JSON.parse(Buffer.concat(chunks).toString());
const KINDS = { float64: "FP64", float32: "FP32", int64: "INT64", bool: "BOOL" };

const rows = (table) => table[0][2].map((_, at) => Object.fromEntries(table.map(([name, , cells]) => [name, cells[at]])));
const columns = (table) => Object.fromEntries(table.map(([name, , cells]) => [name, cells]));
const tensors = (table) =>
  table.map(([name, dtype, data]) => ({ name, shape: [data.length], datatype: KINDS[dtype] ?? "BYTES", data }));

async function withFetch(path, body) {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch(given.url + path, { method: "POST", headers, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
  return answer.json();
}
const withAxios = async (path, body) => (await axios.post(given.url + path, body)).data;

const spellings = {};
for (const [name, ask] of [["fetch", withFetch], ["axios", withAxios]]) {
  for (const model of ["kinds", "numbers", "notes"]) {
    const of = model === "kinds" ? "" : ` of ${model}`;
    spellings[`${name}, V1 instances${of}`] = [model, async (table) =>
      (await ask(`/v1/models/${model}:predict`, { instances: rows(table) })).predictions];
  }
  spellings[`${name}, V1 inputs`] = ["kinds", async (table) =>
    (await ask("/v1/models/kinds:predict", { inputs: columns(table) })).outputs];
  spellings[`${name}, V2`] = ["kinds", async (table) =>
    (await ask("/v2/models/kinds/infer", { inputs: tensors(table) })).outputs[0].data];
  spellings[`${name}, dataframe_records`] = ["kinds", async (table) =>
    (await ask("/models/kinds/invocations", { dataframe_records: rows(table) })).predictions];
}

for (const [spelling, [model, send]] of Object.entries(spellings)) {
  for (const [kind, table] of Object.entries(given.tables[model])) {
    await fetch(`${given.url}/__case__?${new URLSearchParams({ spelling, kind })}`);
    const line = { spelling, model, kind };
    try {
      line.answer = await send(table);
    } catch (problem) {
      line.problem = `${problem.name}: ${problem.message}`.slice(0, 300);
    }
    console.log(JSON.stringify(line));
  }
}
