"""Whose network is this: inputs that an owner's network and what is made of it answer alike, and others don't."""
