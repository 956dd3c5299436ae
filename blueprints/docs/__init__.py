"""What is served, described: OpenAPI documents, and Swagger UI to read and try them."""
