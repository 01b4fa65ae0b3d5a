"""A Keras network through tf2onnx into trainlet: one file, and what TensorFlow predicts to compare with.

TensorFlow wants an environment of its own:

    python -m venv tf && tf/bin/pip install tensorflow-cpu tf2onnx
    tf/bin/python examples/from_tensorflow.py OUT       # OUT/keras_cnn.onnx, OUT/keras_cnn.npz (x, y)

then, where trainlet is:

    trainlet inspect OUT/keras_cnn.onnx
    trainlet compile OUT/keras_cnn.onnx --scheme last:2 -o program
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
SIZE, CLASSES = 24, 5


def network():  # type: ignore[no-untyped-def]
    """Convolutions with BatchNormalization, a depthwise one, a residual, relu6 and a head."""
    import tensorflow as tf

    k = tf.keras.layers
    inputs = tf.keras.Input((SIZE, SIZE, 3), batch_size=1, name="image")
    x = k.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(inputs)
    x = k.ReLU(max_value=6.0)(k.BatchNormalization(name="stem_norm")(x))
    y = k.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    y = k.ReLU(max_value=6.0)(k.BatchNormalization(name="depthwise_norm")(y))
    x = k.Add()([x, k.Conv2D(8, 1, name="project")(y)])
    x = k.GlobalAveragePooling2D()(k.MaxPooling2D(2)(x))
    return tf.keras.Model(inputs, k.Dense(CLASSES, name="head")(x))


def main(folder: Path) -> None:
    import tensorflow as tf
    import tf2onnx

    tf.keras.utils.set_random_seed(0)
    model, rng = network(), np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):  # as if it had been trained
            shapes = [w.shape for w in layer.get_weights()]
            layer.set_weights([rng.uniform(0.5, 1.5, s).astype(np.float32) for s in shapes])
    x = rng.normal(0, 1, (4, SIZE, SIZE, 3)).astype(np.float32)
    y = np.concatenate([model(row[None], training=False).numpy() for row in x])
    run = tf.function(lambda image: model(image, training=False))
    signature = [tf.TensorSpec((1, SIZE, SIZE, 3), tf.float32, name="image")]
    proto, _ = tf2onnx.convert.from_function(run, input_signature=signature, opset=17)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "keras_cnn.onnx").write_bytes(proto.SerializeToString())
    np.savez(folder / "keras_cnn.npz", x=x, y=y)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
