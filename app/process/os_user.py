"""Who runs this process, for records of who did what."""

from __future__ import annotations

import os
import pwd


def current_user() -> str:
    """Return the user's name; with sudo also the name of the user who called it."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user has no name
        name = f"uid {os.getuid()}"
    caller = os.environ.get("SUDO_USER")
    return f"{name} (sudo by {caller})" if caller else name
