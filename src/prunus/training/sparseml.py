def is_sparseml(p): return False
def convert(p): raise NotImplementedError
