"""Where `deface` hides faces, as JSON: run by `faces.py` with the Python that deface is installed for.

    python deface_boxes.py CLIP OUT.json

Its own reader, detector and `scale_bb` at its default `--mask-scale`, for the lowest threshold of interest: a higher
one keeps the boxes of at least its score, because its non-maximum suppression goes by falling score. For each frame a
list of [x1, y1, x2, y2, score], scaled and clipped as `deface.anonymize_frame` does before it draws its ellipse.
"""

import json
import sys

import imageio
from deface import __version__
from deface.centerface import CenterFace
from deface.deface import scale_bb

LOWEST, MASK_SCALE = 0.05, 1.3


def main() -> None:
    clip, out = sys.argv[1:]
    detector = CenterFace()
    frames = []
    with imageio.get_reader(clip) as reader:
        for frame in reader.iter_data():
            height, width = frame.shape[:2]
            boxes = []
            for found in detector(frame, threshold=LOWEST)[0]:
                x1, y1, x2, y2 = scale_bb(*found[:4].astype(int), MASK_SCALE).tolist()
                x1, y1, x2, y2 = max(0, x1), max(0, y1), min(width - 1, x2), min(height - 1, y2)
                boxes.append([x1, y1, x2, y2, round(float(found[4]), 4)])
            frames.append(boxes)
    with open(out, "w") as file:
        json.dump({"deface": __version__, "backend": detector.backend, "frames": frames}, file)


if __name__ == "__main__":
    main()
