"""How the built-in demonstration checkpoint is made; not part of the package."""
