"""The least a WSGI application can do with a request: read its body, answer a constant."""

BODY = b'{"predictions":[0]}'
HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))]


def application(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", list(HEADERS))
    return [BODY]
