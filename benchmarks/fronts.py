"""Starts nginx in front of the other servers: configured like Tableside's, without its checks and limits."""

from __future__ import annotations

import os
import shutil

from benchmarks.contestants import NGINX, NGINX_KEPT, Place
from benchmarks.free_ports import free_port
from benchmarks.processes import Server, clean_environ

_CONF = """\
{user}daemon off;
pid nginx.pid;
error_log error.log warn;
worker_processes {cores};
events {{ worker_connections 4096; }}
http {{
    client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
    access_log access.log combined buffer=32k flush=1s;
    keepalive_requests 10000;
    client_max_body_size 64m;
    client_body_buffer_size 256k;
    proxy_http_version 1.1;
    proxy_read_timeout 60s;
    {servers}
}}
"""
# A new connection for each request, over the unix socket if the server has one.
_ONE_EACH = """\
    upstream one_each {{ server {address}; }}
    server {{ listen 127.0.0.1:{port} backlog=4096;
        location / {{ proxy_pass http://one_each; proxy_set_header Host $http_host;
            proxy_set_header Connection close; }} }}
"""
_KEPT = """\
    upstream kept {{ server 127.0.0.1:{upstream}; keepalive 64; }}
    server {{ listen 127.0.0.1:{port} backlog=4096;
        location / {{ proxy_pass http://kept; proxy_set_header Host $http_host;
            proxy_set_header Connection ""; }} }}
"""


def configuration(place: Place, ports: dict[str, int], *, one_each: bool) -> str:
    """Return nginx.conf.

    Most servers are reached over kept connections, which are faster for them. With `one_each` the configuration has two
    ports: NGINX with a new connection per request, and NGINX_KEPT with kept connections.
    """
    servers = ""
    if one_each:
        address = f"unix:{place.unix_socket}" if place.unix_socket.exists() else f"127.0.0.1:{place.port}"
        servers += _ONE_EACH.format(address=address, port=ports[NGINX])
    kept = ports.get(NGINX_KEPT) if one_each else ports[NGINX]
    if kept:
        servers += _KEPT.format(upstream=place.port, port=kept)
    user = "user root;\n" if os.geteuid() == 0 else ""
    return _CONF.format(user=user, cores=min(os.cpu_count() or 1, 4), servers=servers)


def start(place: Place, ways: tuple[str, ...]) -> tuple[Server, dict[str, int]]:
    """Start nginx in `place.folder`. Return it and its port for each way that goes through nginx."""
    ports = {way: free_port() for way in ways if way in (NGINX, NGINX_KEPT)}
    folder = place.folder / "front"
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    (folder / "nginx.conf").write_text(configuration(place, ports, one_each=NGINX_KEPT in ways))
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if nginx is None:
        raise SystemExit("nginx is not installed; install it (Debian, Ubuntu: sudo apt-get install nginx-light)")
    command = [nginx, "-p", f"{folder}/", "-c", "nginx.conf", "-e", "error.log"]
    return Server(command, folder, clean_environ(), folder / "start.log"), ports
