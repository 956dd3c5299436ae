"""API documentation: OpenAPI documents of the served models, and Swagger UI to read them and try requests."""
