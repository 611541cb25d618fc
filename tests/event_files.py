"""TensorBoard's event files, read without TensorBoard: records of a length, its check, a message
and its check."""

import io
import struct

import numpy as np
from PIL import Image
from tensorboardX.proto import event_pb2


def events(folder):
    """Every event in the files of a folder, in their order."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def read(folder):
    """(scalars, pictures): name → {step: value}; pictures are uint8 arrays."""
    scalars, pictures = {}, {}
    for event in events(folder):
        for value in event.summary.value:
            if value.HasField("image"):
                image = Image.open(io.BytesIO(value.image.encoded_image_string))
                pictures.setdefault(value.tag, {})[event.step] = np.asarray(image)
            else:
                scalars.setdefault(value.tag, {})[event.step] = value.simple_value
    return scalars, pictures
