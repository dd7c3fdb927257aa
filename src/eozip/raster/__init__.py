"""GeoTIFFs by windows: one file, several dates or a folder in; tiled, compressed files out.

    paths  > open_scene > Scene (a description, no pixels) > open_reader > read(t, y, x) > pixels [T, C, h, w]
    pixels > create_geotiff, create_geotiffs > write > files under their final names, whole or not at all

Memory depends on the window, never on the scene.

Names are imported when they are first used: importing this package loads no rasterio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eozip.lazy import lazy

if TYPE_CHECKING:
    from eozip.raster.delivered import open_product
    from eozip.raster.open import open_scene
    from eozip.raster.product import Acquisition, Layer, Product
    from eozip.raster.read import SceneReader, open_reader, read_window, with_fill
    from eozip.raster.scene import Profile, Scene, Source
    from eozip.raster.write import GeoTiffWriter, create_geotiff, create_geotiffs

_HOMES = {
    "Acquisition": "product",
    "GeoTiffWriter": "write",
    "Layer": "product",
    "Product": "product",
    "Profile": "scene",
    "Scene": "scene",
    "SceneReader": "read",
    "Source": "scene",
    "create_geotiff": "write",
    "create_geotiffs": "write",
    "open_product": "delivered",
    "open_reader": "read",
    "open_scene": "open",
    "read_window": "read",
    "with_fill": "read",
}

__all__ = [
    "Acquisition",
    "GeoTiffWriter",
    "Layer",
    "Product",
    "Profile",
    "Scene",
    "SceneReader",
    "Source",
    "create_geotiff",
    "create_geotiffs",
    "open_product",
    "open_reader",
    "open_scene",
    "read_window",
    "with_fill",
]

__getattr__ = lazy(__name__, _HOMES)
