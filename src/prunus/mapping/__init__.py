"""Which scheme, block and sparsity for which layer: by rules, exactly, or by search."""
