"""The core of Tableside: everything below the blueprints. Kept empty so that importing one room imports only that
room.
"""

__version__ = "0.1.0"
