// Predicts with the types of openapi-typescript and openapi-fetch.
import { readFileSync } from "node:fs";
import createClient from "openapi-fetch";
import type { components, paths } from "./api";

type Schemas = components["schemas"];
type Rows = { numbers: Schemas["numbers.Row"][]; kinds: Schemas["kinds.Row"][]; notes: Schemas["notes.Row"][] };
const given: { url: string; rows: Rows } = JSON.parse(readFileSync(0, "utf8"));
const client = createClient<paths>({ baseUrl: given.url });

function predictions(answer: { data?: unknown; error?: unknown }): unknown {
  if (answer.error) throw new Error(JSON.stringify(answer.error));
  return (answer.data as { predictions: unknown }).predictions;
}

async function main() {
  const { numbers, kinds, notes } = given.rows;
  const answers = {
    numbers: predictions(await client.POST("/v1/models/numbers:predict", { body: { instances: numbers } })),
    kinds: predictions(await client.POST("/v1/models/kinds:predict", { body: { instances: kinds } })),
    notes: predictions(await client.POST("/v1/models/notes:predict", { body: { instances: notes } })),
  };
  console.log(JSON.stringify(answers));
}
main();
