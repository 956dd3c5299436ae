from tableside.publishing.publish import publish as publish
from tableside_client import Client as Client
from tableside_contract import contract as contract

__version__: str
