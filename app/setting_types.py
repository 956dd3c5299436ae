"""Types of settings that are texts of a certain form."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from tableside.setting_front import NETWORK_PATTERN, ORIGIN_PATTERN, PREFIX_PATTERN
from tableside.setting_texts import (
    ADDRESS_PATTERN,
    ENVIRONMENT_PATTERN,
    HOST_PATTERN,
    LIBRARY_PATTERN,
    MODEL_ENVIRONMENT_PATTERN,
    RESOURCE_ATTRIBUTE_PATTERN,
    SHA256_PATTERN,
    TRUSTED_KEY_PATTERN,
    TYPE_PATTERN,
    URL_PATTERN,
)

Positive = Annotated[int, Meta(ge=1)]
Sha256 = Annotated[str, Meta(pattern=SHA256_PATTERN)]
TrustedKey = Annotated[str, Meta(pattern=TRUSTED_KEY_PATTERN)]
TypeName = Annotated[str, Meta(pattern=TYPE_PATTERN)]
Address = Annotated[str, Meta(pattern=ADDRESS_PATTERN)]
HostName = Annotated[str, Meta(pattern=HOST_PATTERN)]
EnvironmentName = Annotated[str, Meta(pattern=ENVIRONMENT_PATTERN)]
Library = Annotated[str, Meta(pattern=LIBRARY_PATTERN)]
ModelEnvironment = Annotated[str, Meta(pattern=MODEL_ENVIRONMENT_PATTERN)]
ResourceAttribute = Annotated[str, Meta(pattern=RESOURCE_ATTRIBUTE_PATTERN)]
Url = Annotated[str, Meta(pattern=URL_PATTERN)]
Network = Annotated[str, Meta(pattern=NETWORK_PATTERN)]
PathPrefix = Annotated[str, Meta(pattern=PREFIX_PATTERN, max_length=200)]
Origin = Annotated[str, Meta(pattern=ORIGIN_PATTERN, max_length=250)]
