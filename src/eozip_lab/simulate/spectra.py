"""Reflectance of what a scene is made of, in rough textbook values, and how crops go through a year."""

from __future__ import annotations

import numpy as np

from eozip_lab.simulate.noise import Array

# fmt: off
# Reflectance by material: B01  B02   B03   B04   B05   B06   B07   B08   B8A   B09   B11   B12
_SPECTRA = {
    "crop":      (.030, .034, .072, .034, .100, .320, .420, .450, .470, .470, .210, .105),
    "flower":    (.036, .044, .165, .150, .230, .390, .460, .490, .500, .490, .230, .130),
    "broadleaf": (.022, .022, .044, .024, .066, .240, .320, .350, .370, .370, .165, .070),
    "conifer":   (.017, .016, .029, .018, .042, .125, .165, .185, .195, .195, .085, .038),
    "dry":       (.068, .082, .125, .165, .210, .250, .275, .300, .325, .335, .380, .290),
    "dark_soil": (.045, .055, .073, .092, .110, .122, .133, .145, .158, .165, .220, .195),
    "pale_soil": (.090, .112, .158, .205, .235, .255, .272, .292, .312, .320, .390, .345),
    "concrete":  (.130, .150, .180, .200, .212, .225, .235, .245, .255, .258, .285, .265),
    "red_roof":  (.055, .065, .090, .150, .190, .215, .230, .240, .255, .260, .300, .260),
    "asphalt":   (.080, .088, .100, .112, .120, .126, .130, .136, .142, .144, .165, .155),
    "metal":     (.340, .380, .395, .405, .410, .415, .418, .420, .425, .410, .380, .340),
    "water":     (.034, .036, .037, .020, .017, .013, .012, .011, .010, .009, .005, .003),
    "silt":      (.052, .066, .092, .074, .064, .046, .044, .037, .033, .028, .010, .006),
    "cloud":     (.900, .920, .930, .950, .970, .980, .990, 1.00, 1.00, .620, .700, .560),
    "haze":      (1.10, 1.00, .720, .510, .440, .390, .350, .310, .270, .230, .080, .040),
    "skylight":  (.520, .470, .380, .320, .300, .270, .250, .230, .220, .220, .170, .150),
}
# Cover through the year: day of year, green, dry, flowering; the rest is soil.
_CROPS = {
    "wheat":      ((1, .22, 0, 0), (75, .35, 0, 0), (110, .75, 0, 0), (140, .95, 0, 0),
                   (165, .70, .25, 0), (185, .15, .75, 0), (203, .03, .55, 0), (235, .10, .25, 0),
                   (262, .03, .05, 0), (300, .12, 0, 0)),
    "rapeseed":   ((1, .45, 0, 0), (80, .60, 0, 0), (103, .55, 0, .35), (115, .35, 0, .62),
                   (134, .60, 0, .25), (155, .85, .05, 0), (180, .30, .60, 0), (196, .04, .45, 0),
                   (240, .05, .15, 0), (290, .30, 0, 0)),
    "barley":     ((1, .30, 0, 0), (80, .50, 0, 0), (110, .90, 0, 0), (140, .75, .15, 0),
                   (162, .15, .75, 0), (180, .03, .50, 0), (215, .30, .15, 0), (265, .60, 0, 0),
                   (320, .35, .05, 0)),
    "maize":      ((1, .03, .12, 0), (95, .05, .05, 0), (125, .02, 0, 0), (155, .25, 0, 0),
                   (180, .80, 0, 0), (230, .95, 0, 0), (255, .60, .30, 0), (276, .10, .60, 0),
                   (295, .03, .30, 0)),
    "beet":       ((1, .02, .02, 0), (105, .02, 0, 0), (140, .20, 0, 0), (170, .85, 0, 0),
                   (270, .92, 0, 0), (300, .60, .10, 0), (315, .04, .10, 0)),
    "sunflower":  ((1, .03, .10, 0), (110, .02, 0, 0), (145, .25, 0, 0), (175, .85, 0, 0),
                   (188, .60, 0, .32), (205, .75, .05, 0), (235, .25, .55, 0), (262, .03, .35, 0)),
    "meadow":     ((1, .45, .25, 0), (80, .55, .20, 0), (115, .88, 0, 0), (150, .93, .02, 0),
                   (160, .45, .30, 0), (195, .80, .08, 0), (205, .45, .35, 0), (250, .75, .12, 0),
                   (310, .55, .20, 0)),
    "lucerne":    ((1, .30, .15, 0), (95, .60, 0, 0), (130, .95, 0, 0), (138, .25, .15, 0),
                   (172, .95, 0, 0), (180, .25, .15, 0), (215, .93, 0, 0), (224, .25, .15, 0),
                   (265, .85, 0, 0), (320, .40, .10, 0)),
    "fallow":     ((1, .10, .25, 0), (100, .20, .15, 0), (140, .45, .15, 0), (200, .30, .45, 0),
                   (280, .20, .35, 0)),
    "broadleaf":  ((1, .22, .20, 0), (95, .26, .18, 0), (112, .55, .12, 0), (135, .96, 0, 0),
                   (250, .93, .02, 0), (285, .60, .26, 0), (312, .28, .32, 0), (335, .22, .22, 0)),
}
# fmt: on
_SHARES = (28, 10, 10, 22, 8, 6, 26, 8, 6)  # of 124 fields, in the order above without broadleaf
SHIFTS = 64  # steps of earliness among fields of one crop
_SHIFT_DAYS = 26.0

CROPS = tuple(_CROPS)
BROADLEAF = CROPS.index("broadleaf")
MEADOW = CROPS.index("meadow")


def spectrum(material: str) -> Array:
    """float32 [12] reflectance, in the order of sensor s2-l2a."""
    return np.array(_SPECTRA[material], np.float32)


def crop_lottery() -> Array:
    """uint8 [124] crop indices in the shares in which they are sown."""
    return np.repeat(np.arange(len(_SHARES), dtype=np.uint8), _SHARES)


def phenology(day_of_year: int) -> Array:
    """Cover on one day: float32 [3 (green, dry, flower), crops * SHIFTS]; column crop * SHIFTS + shift."""
    late = (np.arange(SHIFTS) / (SHIFTS - 1) - 0.5) * _SHIFT_DAYS
    tables = [_curve(knots, day_of_year - late) for knots in _CROPS.values()]
    return np.concatenate(tables, axis=1).astype(np.float32)


def _curve(knots: tuple[tuple[float, ...], ...], days: Array) -> Array:
    day, *covers = np.array(knots, np.float64).T
    return np.stack([np.interp(days, day, cover, period=365.25) for cover in covers])
