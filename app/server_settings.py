"""The section `[server]` of the settings: addresses, processes and limits of one stack."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tableside import machine
from tableside.setting_types import Address, HostName, Network, Origin, PathPrefix, Positive


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The section `[server]`: addresses, processes and limits of one stack.

    The timeouts are nested, so that the inner one expires first: request deadline < `graceful_timeout_s` <
    `proxy_read_timeout_s` < `stop_wait_s`.
    """

    listen: Address = "127.0.0.1:8080"
    """Address of the data plane: predictions, metadata and health."""
    admin_listen: Address = "127.0.0.1:8081"
    """Address of the control plane: all routes, including metrics and admin."""
    workers: Positive = msgspec.field(default_factory=machine.processors)
    """Number of gunicorn workers. Each worker loads every model."""
    run_dir: str = "run"
    """Folder of the pid files, sockets, logs and the admin key."""
    environments_dir: str = ""
    """Folder of the environments that `tableside env create` makes; empty: `environments` beside the run folder."""
    nginx: Literal["auto", "on", "off"] = "auto"
    """Whether nginx runs in front of gunicorn. `auto` uses it if it is installed; `on` refuses to start without it."""
    predict_threads: Positive = 2
    """Number of native threads in which one worker predicts."""
    request_timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    """Deadline of a request; later, the client gets status 504."""
    lame_duck_s: Annotated[float, Meta(ge=0, le=3600)] = 0.0
    """Seconds at the end of the stack in which readiness answers 503 while requests are still served."""
    max_body_bytes: Positive = 64 * 1024 * 1024
    """Largest request body as sent; a larger one gets status 413."""
    max_upload_bytes: Positive = 2 * 1024 * 1024 * 1024
    """Largest version or artifact that is published through the admin API, as sent and unpacked; more gets 413."""
    max_url_bytes: Annotated[int, Meta(ge=256, le=65536)] = 8000
    """Longest URL of a request, path and query; a longer one gets status 414."""
    max_header_bytes: Annotated[int, Meta(ge=1024, le=65536)] = 8192
    """Largest header; a larger one gets status 431."""
    max_headers: Annotated[int, Meta(ge=16, le=1000)] = 100
    """Largest number of headers of a request; more gets status 431."""
    max_inflated_bytes: Positive = 256 * 1024 * 1024
    """Largest request body after decompression, and largest table of one; more gets status 413."""
    max_inflation: Positive = 32
    """How many times its own size a body may grow when it is decoded, beyond 16 MiB; more gets status 413."""
    max_rows: Positive = 1_000_000
    """Most rows of one request; more get status 413."""
    max_answer_bytes: Positive = 256 * 1024 * 1024
    """Largest answer, estimated from its rows and columns before the prediction; a larger one gets status 413."""
    max_bytes_in_hand: Positive = 512 * 1024 * 1024
    """Bytes of request bodies that one worker holds at once; beyond them requests get status 429."""
    max_connections_per_client: Positive = 512
    """Requests that one client address may have open at once, with those it is still sending; more get status 429."""
    max_requests_in_flight: Positive = 2048
    """Complete requests of all clients that the workers have at once; more get status 429."""
    max_requests_per_worker: Annotated[int, Meta(ge=0)] = 0
    """Requests after which a worker is replaced by a new one, plus up to a tenth by chance; 0 means never."""
    allowed_hosts: tuple[HostName, ...] = ()
    """Names by which requests may call this server, beside its addresses and the machine's names; `*` allows all."""
    path_prefix: PathPrefix = ""
    """Path below which a proxy in front publishes this server, such as `/ml`; requests may come without it, too."""
    trusted_proxies: tuple[Network, ...] = ()
    """Addresses or networks of proxies whose X-Forwarded-For and X-Forwarded-Prefix count; those of others do not."""
    keepalive_s: Annotated[int, Meta(ge=1, le=86400)] = 65
    """Seconds that an idle connection may be used again, as clients are told; longer than a load balancer's."""
    cors_origins: tuple[Origin, ...] = ()
    """Origins of pages that may call the data plane from a browser, such as `https://app.example.com`; `*`: all."""
    require_keys: bool = False
    """Whether predictions and metrics need a key on loopback addresses too. They always do on others, unless `open`."""
    keys_file: Annotated[str, Meta(min_length=1)] = "keys.json"
    """File with the hashes of the keys that `tableside keys add` makes. It must be outside of the repository."""
    open: bool = False
    """Whether the stack may listen beyond loopback without keys and TLS, because a proxy or a network protects it."""
    tls_certificate: str = ""
    """File with the certificate and its intermediates, in PEM; empty: no TLS. Both ports then speak TLS only."""
    tls_key: str = ""
    """File with the private key of `tls_certificate`, in PEM, without a passphrase."""
    hsts_max_age_s: Annotated[int, Meta(ge=0)] = 0
    """Seconds for which browsers shall use HTTPS only (Strict-Transport-Security); 0 sends no such header."""
    quarantine_s: Annotated[float, Meta(ge=0, le=86400)] = 600.0
    """Seconds for which a request that ended two workers is refused, or its model stopped; 0 means never."""
    docs: bool = True
    """Whether `/docs` and the OpenAPI documents are served."""

    @property
    def graceful_timeout_s(self) -> int:
        """Seconds that gunicorn gives a stopping worker to finish its requests."""
        return int(self.request_timeout_s) + 5

    @property
    def proxy_read_timeout_s(self) -> int:
        """Seconds that nginx waits for a worker's answer."""
        return self.graceful_timeout_s + 5

    @property
    def keepalive_held_s(self) -> int:
        """Seconds after which this side closes an idle connection: later than it says, so that no request meets it."""
        return self.keepalive_s + 5

    @property
    def stop_wait_s(self) -> int:
        """Seconds between supervisord's SIGTERM and its SIGKILL."""
        return self.proxy_read_timeout_s + math.ceil(self.lame_duck_s) + 5

    @property
    def stack_stop_s(self) -> int:
        """Seconds that the end of the whole stack may take. What stops it from outside has to wait longer."""
        return math.ceil(self.lame_duck_s) + 2 * self.stop_wait_s + 15
