"""The other side of `timm_reads_ours`: what timm computes from a saved folder. Needs torch and timm; not jax.

    python -m benchmarks.parity.saved FOLDER

The folder has folders with a saved classifier in each, and beside it `given.npz`: photographs (uint8, `photo0`, ...)
and the network's input `x` (float32 NHWC). Prints a line of JSON for each.
"""

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image


def compute(folder: Path) -> dict:
    """The logits and the preprocessed photographs, written to `theirs.npz`; or why timm refuses the folder."""
    given = np.load(folder / "given.npz")
    try:
        model = timm.create_model(f"local-dir:{folder / 'saved'}", pretrained=True).eval()
    except Exception as error:  # whatever timm raises is its refusal
        return {"name": folder.name, "refused": f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"}
    data = timm.data.resolve_data_config({}, model=model)
    transform = timm.data.create_transform(**data)
    photos = [given[name] for name in given if name.startswith("photo")]
    seen = torch.stack([transform(Image.fromarray(photo)) for photo in photos])
    with torch.no_grad():
        logits = model(torch.from_numpy(given["x"]).permute(0, 3, 1, 2))
        of_own = model(seen)
    np.savez(folder / "theirs.npz", logits=logits, of_own=of_own, seen=seen.permute(0, 2, 3, 1))
    return {"name": folder.name, "labels": list(model.pretrained_cfg.get("label_names") or ())}


def main() -> None:
    """Computes every folder and prints what came of it."""
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        print(json.dumps(compute(folder)), flush=True)


if __name__ == "__main__":
    main()
