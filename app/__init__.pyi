from tableside.publishing.publish import publish as publish
from tableside_client import Client as Client

__version__: str
