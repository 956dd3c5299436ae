"""The OpenAPI 3.1 document, made from the contracts of what is served. Pure functions: contract in, dict out."""
