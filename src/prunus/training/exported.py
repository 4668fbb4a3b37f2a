"""The names that torch.onnx gives to what it exports."""

OWN = "onnx::"  # begins the names of constants that it computed: weights with BatchNorm folded in, transposed ones


def module_name(node: str) -> str:
    """The module that a node is of: "/1/1.0/conv1/Conv" is of 1.0.conv1; children of a Sequential go by their number
    behind its name. "" of a node that isn't named so."""
    found: list[str] = []
    for part in node.strip("/").split("/")[:-1]:
        if found and part.startswith(f"{found[-1]}."):
            found[-1] = part
        else:
            found.append(part)
    return ".".join(found)
