"""GeoTIFFs by windows: one file, several dates or a folder in; tiled, compressed files out.

    paths  > open_scene > Scene (a description, no pixels) > open_reader > read(t, y, x) > pixels [T, C, h, w]
    pixels > create_geotiff, create_geotiffs > write > files under their final names, whole or not at all

Memory depends on the window, never on the scene.
"""

from eozip.raster.delivered import open_product
from eozip.raster.open import open_scene
from eozip.raster.product import Acquisition, Layer, Product
from eozip.raster.read import SceneReader, open_reader, read_window, with_fill
from eozip.raster.scene import Profile, Scene, Source
from eozip.raster.write import GeoTiffWriter, create_geotiff, create_geotiffs

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
