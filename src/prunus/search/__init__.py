"""How wide each layer: Pruning-as-Search, and what it is compared with."""
