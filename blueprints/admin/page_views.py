"""The status page at `/` of the control plane, and signing in to it with a key of the scope admin.

The page needs no script. It changes nothing: its session opens this page and no route of an API.
"""

from __future__ import annotations

import secrets
import threading
import time
from functools import partial
from pathlib import Path

from flask import Blueprint, Response, redirect, render_template, request, send_from_directory
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.wrappers import Response as WerkzeugResponse

from tableside import __version__
from tableside.access_keys import Scope, digest
from tableside.blueprints.admin import page_content, page_cookies
from tableside.blueprints.admin.page_cookies import FORM, SESSION
from tableside.blueprints.admin.page_query import REFRESH_S, PageQuery
from tableside.disk_errors import DiskFull
from tableside.errors import Overloaded, TablesideError, Unauthorized, WrongScope
from tableside.process.offload import run_native
from tableside.telemetry import logs
from tableside.web import audit, front_page, path_prefix, sessions
from tableside.web.auth import KEY_NAME, Access, allow
from tableside.web.extensions import extensions, registry, settings
from tableside.web.sessions import Session

STATIC = Path(__file__).parent / "static"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # without a referrer a form would have the origin `null`
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
MAX_FORM_BYTES = 4096
ATTEMPTS = 4
"""How many wrong keys a worker keeps waiting at once. Further ones are told to come later."""
WRONG_KEY_S = 1.0
"""How long an attempt with a wrong key takes."""
NOT_ENDED = (
    "This browser is signed out, but the server could not remove the session's file from run/sessions. "
    "Whoever has copied the cookie can use it until the session ends."
)
_attempts = threading.BoundedSemaphore(ATTEMPTS)
log = logs.get_logger("status_page")

blueprint = Blueprint("page", __name__, url_prefix="/admin", template_folder="templates")
allow(blueprint, Access.PAGE)


def page() -> Response:
    """The status page for those who are signed in, and the form to sign in for others."""
    session = _session()
    if session is None:
        return _sign_in_page()
    query = PageQuery.of(request.args)
    content = page_content.collect(query, extensions(), time.time())
    token = page_cookies.get(SESSION)
    response = _html(
        "admin/status.html", content=content, query=query, choices=REFRESH_S, session=session,
        form_token=sessions.form_token(token),
    )  # fmt: skip
    if query.refresh_s:
        response.headers["Refresh"] = str(query.refresh_s)
    return response


front_page.provide(page)


@blueprint.get("")
@blueprint.get("/")
def moved() -> WerkzeugResponse:
    """Redirect to the page, which is at the root."""
    return redirect(_base() or "./", 302)


@blueprint.get("/static/<path:name>")
def static(name: str) -> Response:
    """The page's style sheet and icon. They are the same on every server of one release."""
    request.environ.pop("HTTP_RANGE", None)  # a part of a file would not leave through an answer file
    response = send_from_directory(STATIC, name)
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


@blueprint.post("/sign-in")
def sign_in() -> WerkzeugResponse:
    """Begin a session with a key of the scope admin, and redirect to the page."""
    request.max_content_length = MAX_FORM_BYTES
    form = request.form
    if not sessions.is_form_token(form.get("form_token", ""), page_cookies.get(FORM)):
        return _sign_in_page("The form is too old, or the browser keeps no cookies. Try again.", 403)
    token = form.get("key", "").strip()
    try:
        name = _checked(token)
    except (Unauthorized, WrongScope, Overloaded) as problem:
        return _refused(problem)
    request.environ[KEY_NAME] = name
    now_s = time.time()
    try:
        with audit.recorded("sign_in"):
            begun = run_native(partial(_begin, settings().run_dir, name, digest(token), now_s))
    except DiskFull as problem:
        return _sign_in_page(f"{str(problem).capitalize()}.", 507)
    if earlier := page_cookies.get(SESSION):
        _end(earlier)
    response = _to_page()
    page_cookies.put(response, SESSION, begun, sessions.LIFE_S)
    page_cookies.remove(response, FORM)
    return response


def _begin(run_dir: Path, name: str, sha256: str, now_s: float) -> str:
    try:
        return sessions.begin(run_dir, name, sha256, now_s)
    except OSError as problem:
        raise DiskFull("a session", 4096) from problem


@blueprint.post("/sign-out")
def sign_out() -> WerkzeugResponse:
    """End the session, for every worker, and redirect to the form.

    The session ends also while its key does not count, because the key may count again later.
    """
    request.max_content_length = MAX_FORM_BYTES
    token = page_cookies.get(SESSION)
    found = _find(token)
    response = _to_page()
    if sessions.is_form_token(request.form.get("form_token", ""), token):
        if not _end(token):
            response = _sign_in_page(NOT_ENDED, 500)
        elif found is not None:
            _record_end(found)
    elif found is not None:
        return _sign_in_page("The form is too old. You are still signed in: open the page again.", 403)
    page_cookies.remove(response, SESSION)
    return response


def _end(token: str) -> bool:
    """End a session. Return whether it could be ended."""
    try:
        run_native(partial(sessions.end, settings().run_dir, token))
    except OSError as problem:
        log.error("session_not_ended", reason=f"{type(problem).__name__}: {problem.strerror}")
        return False
    return True


def _record_end(session: Session) -> None:
    """Record that somebody has signed out. Without room for the line they have signed out all the same."""
    request.environ[KEY_NAME] = session.key
    try:
        with audit.recorded("sign_out"):
            pass
    except DiskFull as problem:
        log.error("sign_out_not_recorded", reason=str(problem))


@blueprint.errorhandler(RequestEntityTooLarge)
def too_large(problem: RequestEntityTooLarge) -> Response:
    """The form again: what was sent is no form of the page, and server.max_body_bytes is another limit."""
    return _sign_in_page(f"The form is larger than {MAX_FORM_BYTES} bytes. This is no key of this server.", 413)


def _session() -> Session | None:
    """Return the session of this request, if its key still opens the admin routes."""
    found = _find(page_cookies.get(SESSION))
    return found if found is not None and found.sha256 in extensions().guard.admin_keys() else None


def _find(token: str) -> Session | None:
    return run_native(partial(sessions.find, settings().run_dir, token, time.time())) if token else None


def _checked(token: str) -> str:
    """Return the name of an admin key. Raises Unauthorized or WrongScope, late, or Overloaded.

    Only wrong keys wait, so that nobody who sends many of them keeps operators from signing in.
    """
    try:
        return extensions().guard.key_name(token, Scope.ADMIN)
    except (Unauthorized, WrongScope) as problem:
        if not _attempts.acquire(blocking=False):
            raise Overloaded("others try to sign in at this moment") from problem
        try:
            time.sleep(WRONG_KEY_S)
        finally:
            _attempts.release()
        raise


def _refused(problem: TablesideError) -> Response:
    if isinstance(problem, Overloaded):  # the access log has it: a flood must not write a second line for each
        response = _sign_in_page("Wrong key, and too many wrong keys at once. Try again in some seconds.", 429)
        response.headers["Retry-After"] = "10"
        return response
    log.warning("sign_in_refused", reason=problem.problem if isinstance(problem, Unauthorized) else str(problem))
    if isinstance(problem, WrongScope):
        return _sign_in_page(f"This key has the scope {problem.scope}. The page needs one with the scope admin.", 403)
    expired = isinstance(problem, Unauthorized) and problem.problem == "expired"
    response = _sign_in_page("This key has expired." if expired else "This is no key of this server.", 401)
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _sign_in_page(problem: str = "", status: int = 200) -> Response:
    """The page for those who are not signed in. It names no model."""
    secret = page_cookies.get(FORM) or secrets.token_urlsafe(32)
    response = _html(
        "admin/sign_in.html", status, problem=problem, form_token=sessions.form_token(secret),
        not_ready=registry().not_ready(), is_open=bool(extensions().guard.admin_keys()),
    )  # fmt: skip
    page_cookies.put(response, FORM, secret, sessions.LIFE_S)
    return response


def _html(template: str, status: int = 200, **values: object) -> Response:
    text = render_template(
        template, base=_base(), version=__version__, has_docs=settings().server.docs,
        needs_keys=settings().needs_keys, **values,
    )  # fmt: skip
    content = text.encode(errors="replace")  # a name from a file or a command may have bytes that are no UTF-8
    response = Response(content, status, HEADERS, content_type="text/html; charset=utf-8")
    response.vary.update(("Accept", "Cookie"))
    return response


def _to_page() -> WerkzeugResponse:
    response = redirect(_base(), 303)
    response.headers.extend(HEADERS)
    return response


def _base() -> str:
    """The path of the root, for links. It is relative where no proxy has a prefix that is known here."""
    prefix = path_prefix.of(request.environ, settings().server)
    return f"{prefix}/" if prefix else "../" * (request.path.count("/") - 1)
