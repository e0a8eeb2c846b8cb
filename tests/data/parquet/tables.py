"""Tables as Hugging Face's library writes them."""

import json
from collections.abc import Sequence
from typing import Any


def table(
    images: Sequence[bytes | None], labels: Sequence[Any], names: Sequence[str] | None = None, **options: Any
) -> Any:
    """A table with the columns `image` and `label`; `names` makes the label a ClassLabel."""
    import pyarrow as pa

    image, label, kind = options.get("image", "image"), options.get("label", "label"), options.get("kind")
    structs = [{"bytes": each, "path": f"{number}.png"} for number, each in enumerate(images)]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {image: pa.array(structs, struct), label: pa.array(labels, kind)}
    if options.get("plain"):
        columns[image] = pa.array(images, pa.binary())
    made = pa.table(columns)
    if names is None:
        return made
    features = {
        image: {"_type": "Image", **options.get("feature", {})},
        label: {"_type": "ClassLabel", "names": list(names)},
    }
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
