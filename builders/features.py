"""The columns of a description set, in the JSON that `datasets` keeps in a shard's Arrow metadata.

Written without `datasets`: importing it takes a second and 150 MB, a third of what building 5,000 rows takes. A test
compares every schema with the one that `datasets.Features.from_dict` makes of the same JSON.
Source: `datasets.Features.arrow_schema`, https://huggingface.co/docs/datasets/about_dataset_features
"""

import json
from typing import Any

import pyarrow as pa

from builders.errors import UserError

Feature = dict[str, Any]
Features = dict[str, Feature]  # by column, in order

_TEXT: Feature = {"dtype": "string", "_type": "Value"}
_COUNT: Feature = {"dtype": "int32", "_type": "Value"}
_ARROW = {"string": pa.string(), "int32": pa.int32(), "float64": pa.float64(), "bool": pa.bool_()}
_METADATA = b"huggingface"


def dataset_features(
    label_names: list[str], with_images: bool, with_findings: bool = False, with_review: bool = False
) -> Features:
    """The columns of a description set's shards, in order; image, findings and review only where there are such."""
    return {
        **({"image": {"_type": "Image"}} if with_images else {}),
        "image_id": _TEXT,
        "image_sha256": _TEXT,
        "path": _TEXT,
        "label": {"names": label_names, "_type": "ClassLabel"},
        "description": _TEXT,
        **({"findings": _TEXT} if with_findings else {}),
        "finish_reason": _TEXT,
        "temperature": {"dtype": "float64", "_type": "Value"},
        "n_image_tokens": _COUNT,
        "n_prompt_tokens": _COUNT,
        "n_output_tokens": _COUNT,
        "n_tiles": _COUNT,
        "flags": {"feature": _TEXT, "_type": "List"},
        **({"review": _TEXT, "review_note": _TEXT} if with_review else {}),
        "duplicate_group": _TEXT,
        "split_official": _TEXT,
        "split_clean": _TEXT,
        "in_balanced_subset": {"dtype": "bool", "_type": "Value"},
    }


def arrow_schema(features: Features) -> pa.Schema:
    """The schema of a shard with these columns, which it carries in its metadata: `load_dataset` needs no script."""
    fields = [(name, _arrow_type(feature)) for name, feature in features.items()]
    return pa.schema(fields, {_METADATA: json.dumps({"info": {"features": features}}).encode()})


def features_of(schema: pa.Schema) -> Features:
    """The columns of a shard that `build` wrote, from its metadata. Raises `UserError` on a shard without them."""
    try:
        features = json.loads((schema.metadata or {})[_METADATA])["info"]["features"]
        if not all("_type" in feature for feature in features.values()):  # a stranger's file may say anything
            raise ValueError("a column without a type")
        return features
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"a shard does not carry the features of `datasets`: {error}", "build the dataset again: `vl-dermnet build`"
        ) from error


def _arrow_type(feature: Feature) -> pa.DataType:
    match feature["_type"]:
        case "Image":
            return pa.struct({"bytes": pa.binary(), "path": pa.string()})
        case "ClassLabel":
            return pa.int64()
        case "List":
            return pa.list_(_arrow_type(feature["feature"]))
        case _:
            return _ARROW[feature["dtype"]]
