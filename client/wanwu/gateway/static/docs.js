// The API's description, drawn by Swagger UI from /openapi.json; nothing comes from elsewhere.
"use strict";

SwaggerUIBundle({ url: "openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null });
