// URLs are relative, so that the page works behind a proxy that adds a path prefix, also one that the server is not told
// of: what is tried out goes to the folder of this page. `?model=NAME` shows one model.
// Where the document needs a key, the page asks for it. The key is in this script's memory only: in no URL, cookie or
// storage, and in no cache. Another tab, or this one when it is loaded again, asks anew.
"use strict";
const SCHEME = "key"; // its name in the document's securitySchemes
const model = new URLSearchParams(window.location.search).get("model");
const url = model === null ? "openapi.json" : `v2/models/${encodeURIComponent(model)}/openapi.json`;
const form = document.getElementById("ask");
const field = document.getElementById("key");
const said = document.getElementById("said");

function show(spec, key) {
  form.hidden = true;
  said.textContent = "";
  window.ui = SwaggerUIBundle({
    dom_id: "#docs",
    spec: spec,
    deepLinking: true,
    displayOperationId: true,
    displayRequestDuration: true,
    docExpansion: "list",
    defaultModelsExpandDepth: 0,
    filter: true,
    persistAuthorization: false,
    validatorUrl: null,
    onComplete: () => {
      if (key) {
        window.ui.preauthorizeApiKey(SCHEME, key);
      }
    },
  });
}

async function load(key) {
  const options = key ? { headers: { Authorization: `Bearer ${key}` }, cache: "no-store" } : {};
  let answer;
  try {
    answer = await fetch(url, options);
    const content = await answer.json();
    if (answer.ok) {
      content.servers = [{ url: new URL(".", window.location.href).pathname.replace(/\/$/, "") || "/" }];
      show(content, key);
      return;
    }
    said.textContent = key || ![401, 403].includes(answer.status) ? content.error : "";
  } catch (problem) {
    said.textContent = `the document cannot be read: ${problem.message}`;
  }
  form.hidden = !(answer && [401, 403].includes(answer.status));
  if (!form.hidden) {
    field.focus();
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const key = field.value.trim();
  field.value = "";
  load(key);
});
load("");
