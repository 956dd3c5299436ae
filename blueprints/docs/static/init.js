// URLs are relative, so that the page works behind a proxy that adds a path prefix. `?model=NAME` shows one model.
"use strict";
const model = new URLSearchParams(window.location.search).get("model");
window.ui = SwaggerUIBundle({
  dom_id: "#docs",
  url: model === null ? "openapi.json" : `v2/models/${encodeURIComponent(model)}/openapi.json`,
  deepLinking: true,
  displayOperationId: true,
  displayRequestDuration: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  filter: true,
  validatorUrl: null,
});
