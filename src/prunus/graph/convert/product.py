"""Gemm and MatMul by a constant matrix, stored outputs first."""

import numpy as np

from prunus.graph.convert.site import Converted, Site
from prunus.sparsity.refusal import Refusal


def gemm(site: Site) -> Converted:
    """x @ B + C with B constant; alpha and beta go into the constants."""
    matrix = site.constant(1)
    if matrix is None or site.is_constant(0):
        return Refusal("a second matrix that isn't constant")
    if site.attribute("transA", 0):
        return Refusal("transA")
    alpha, beta = float(site.attribute("alpha", 1.0)), float(site.attribute("beta", 1.0))
    rows = matrix if site.attribute("transB", 0) else matrix.T
    if alpha != 1:
        rows = rows * np.float32(alpha)
    weight = site.hold(1) if rows is matrix else site.hold(1, rows, "weight")
    bias, added = None, None
    if site.is_constant(2):
        constant = site.constant(2)
        assert constant is not None
        if constant.size not in (1, len(rows)) or (constant.ndim == 2 and constant.shape[0] != 1):
            return Refusal(f"a constant of shape {list(constant.shape)} is added, expected one per output")
        spread = np.broadcast_to(constant.reshape(-1) * np.float32(beta), (len(rows),))
        plain = beta == 1 and constant.shape == (len(rows),)
        bias = site.hold(2) if plain else site.hold(2, spread, "bias")
    elif site.has(2):
        if beta != 1:
            return Refusal("beta of a matrix that isn't constant")
        added = site.input(2)
    attrs = {"weight": weight, "bias": bias, "activation": None, "slope": None}
    if added is None:
        return [site.make("gemm", [site.input()], **attrs)]
    product = site.value("product", site.out_shape)
    add = {"function": "add", "constant": None, "constant_first": False}
    return [site.make("gemm", [site.input()], product, **attrs), site.make("binary", [product, added], suffix="add", **add)]


def matmul(site: Site) -> Converted:
    """x[..., k] @ constant [k, o]."""
    matrix = site.constant(1)
    if matrix is None or site.is_constant(0):
        return Refusal("a second matrix that isn't constant")
    rank = len(site.shape())
    if rank < 2 or matrix.ndim < 2 or matrix.ndim > rank or any(n != 1 for n in matrix.shape[:-2]):
        return Refusal(f"shapes {list(site.shape())} @ {list(matrix.shape)}, expected [..., k] @ [k, o]")
    weight = site.hold(1, matrix.reshape(matrix.shape[-2:]).T, "weight")
    return [site.make("gemm", [site.input()], weight=weight, bias=None, activation=None, slope=None)]
