"""Doors for other libraries that need no model; each module imports its library, and ``import textgym`` loads none of them."""
