"""The first bytes of prometheus-client's metric files, as its class `MmapedDict` describes them.

4 bytes say how many bytes are used. 4 bytes of padding follow, which prometheus-client neither reads nor writes.
"""

from __future__ import annotations

import struct

HEAD = struct.Struct("iI")
HEAD_BYTES = HEAD.size
STAMP_AT = 4
"""Where `MetricFiles` writes a number by chance into a new file."""
