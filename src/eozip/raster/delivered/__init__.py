"""Layouts in which products are delivered, each read into deliveries, and these joined to a Product.

.SAFE > safe.py, files > bandfiles.py ...> Delivery > open.py > Product
"""

from eozip.raster.delivered.open import open_product

__all__ = ["open_product"]
