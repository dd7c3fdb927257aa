"""flextec-small on disk: the tables of its intervals, and the name and hash of the tec-tt-small weights it stands on."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from pathlib import Path

from eozip import hub
from eozip.codecs.small.image_codec import SmallCodec
from eozip.codecs.small.progressive_codec import FlexCodec
from eozip.codecs.small.refinement import refinement, refinement_tensors
from eozip.codecs.small.weight_files import load_small
from eozip.errors import WeightsError

KIND = "small-flex"


def save_flex(folder: Path, codec_id: str, base: Path, card: str) -> None:
    """Builds the tables and names the networks.

    Args:
        folder: to write.
        codec_id: full id.
        base: folder of the tec-tt-small weights; ships beside `folder`.
        card: Markdown.
    """
    networks = hub.read_folder(base).config
    config = {"kind": KIND, "id": codec_id, "codecs": [codec_id], "sensor": networks["sensor"]}
    config |= {"base": base.name, "base_sha256": networks["sha256"]}
    hub.write_folder(folder, refinement_tensors(), config, card)


def load_codec(folder: Path, full_id: str | None = None) -> FlexCodec:
    """`load_flex` as the registry calls it; there is one id per folder."""
    return load_flex(folder)


def load_flex(folder: Path) -> FlexCodec:
    """A codec from the files of `save_flex`, and the networks in the folder beside it or shipped.

    Raises:
        WeightsError: files missing, of another hash or kind, or networks that are not those it was made for.
    """
    weights = hub.read_folder(folder)
    config = weights.config
    if weights.kind != KIND:
        raise WeightsError(f"{folder}: expected kind {KIND!r}, got {weights.kind!r}")
    base = load_small(hub.beside(folder, str(config["base"])))
    if base.weights_hash.hex() != config["base_sha256"]:
        raise WeightsError(
            f"{folder}: expected {config['base']} with hash {config['base_sha256']}, got {base.weights_hash.hex()}"
        )
    own = {f.name: getattr(base, f.name) for f in fields(SmallCodec)}
    digest = hashlib.sha256(base.weights_hash + bytes.fromhex(str(config["sha256"]))).digest()[:8]
    own |= {"id": str(config["id"]), "weights_hash": digest}
    return FlexCodec(**own, refinement=refinement(weights.tensors))
