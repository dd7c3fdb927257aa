"""What does not change through the season: parcels, forest, water, roads, villages, terrain."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from eozip_lab.simulate.noise import Array, fractal, hash32, salted, scramble, smooth, unit
from eozip_lab.simulate.spectra import BROADLEAF, MEADOW, SHIFTS, crop_lottery

STATIC = ("concrete", "red_roof", "asphalt", "metal", "water", "silt")
_BLOCK = 118  # pixels between field blocks, which share one direction of ploughing
_VILLAGE = 300  # one village or none in each square of this many pixels
_LAKE = 460
_PIXEL_M = 10.0


@dataclass(frozen=True)
class Land:
    """Land cover of a window, every array float32 [h, w] unless said otherwise.

    Attributes:
        crop: int [h, w] column of the phenology table (crop * SHIFTS + shift).
        vigour: factor on green cover, around 1.
        soil: 0 (dark) to 1 (pale) soil.
        farmed: share that follows `crop`; forest of leaf trees included.
        conifer: share of conifers.
        canopy: roughness of tree crowns, around 1; 1 outside forest.
        fixed: [6, h, w] shares of the materials in STATIC.
        slope_x: rise to the east per metre; slope_y: rise to the south per metre.
    """

    crop: Array
    vigour: Array
    soil: Array
    farmed: Array
    conifer: Array
    canopy: Array
    fixed: Array
    slope_x: Array
    slope_y: Array


def land_of(seed: int, rows: Array, columns: Array) -> Land:
    """Land cover at absolute rows [h] and columns [w], int64 and consecutive."""
    world = _World(seed, rows, columns)
    blocks = _blocks(world)
    parcels = _parcels(world, blocks)
    woods, needles = _forest(world, blocks)
    water, silt, bank = _water(world)
    village = _villages(world)
    road = np.maximum(blocks.road * (1 - water), _highway(world))  # only highways have bridges

    woods = np.maximum(woods, bank) * (1 - village.green)
    natural = (1 - water) * (1 - village.sealed) * (1 - road)
    trees = world.noise("crowns", 3) * np.float32(0.10) + world.noise("stands", 17) * np.float32(0.06) + 1
    leafy = woods > 0.5
    stand = np.clip(world.noise("earliness", 46) * np.float32(9) + np.float32(32), 0, SHIFTS - 1).astype(
        np.int32
    )
    crop = np.where(leafy, np.int32(BROADLEAF * SHIFTS) + stand, parcels.crop)
    crop = np.where(village.green > 0.5, np.int32(MEADOW * SHIFTS) + stand, crop)
    sealed = (1 - water) * (1 - road) * village.sealed
    fixed = np.stack(
        [
            sealed * village.concrete,
            sealed * village.red,
            sealed * village.asphalt + road * (1 - water * np.float32(0.3)),
            sealed * village.metal,
            water * (1 - silt) * (1 - road * np.float32(0.7)),
            water * silt * (1 - road * np.float32(0.7)),
        ]
    )
    slope_x, slope_y = _slopes(world)
    return Land(
        crop=crop,
        vigour=np.where(leafy, np.float32(1), parcels.vigour),
        soil=np.where(leafy, np.float32(0.12), parcels.soil),
        farmed=natural * (1 - woods * needles),
        conifer=natural * woods * needles,
        canopy=np.where(woods > 0.5, trees, np.float32(1)),
        fixed=fixed,
        slope_x=slope_x,
        slope_y=slope_y,
    )


class _World:
    """A seed and a window: names noises, so that no two share a salt."""

    def __init__(self, seed: int, rows: Array, columns: Array) -> None:
        self.seed, self.rows, self.columns = seed, rows, columns
        self.y = rows.astype(np.float32)[:, None] + np.zeros((1, len(columns)), np.float32)
        self.x = columns.astype(np.float32)[None, :] + np.zeros((len(rows), 1), np.float32)

    def salt(self, name: str) -> int:
        return salted(self.seed, *name.encode())

    def noise(self, name: str, cell: int) -> Array:
        return smooth(self.salt(name), cell, self.rows, self.columns)

    def fractal(self, name: str, cell: int, octaves: int, gain: float = 0.5) -> Array:
        return fractal(self.salt(name), cell, octaves, self.rows, self.columns, gain)

    def chance(self, name: str) -> float:
        return self.salt(name) / 2**32


@dataclass(frozen=True)
class _Blocks:
    """Field blocks: id hash (uint32), share of road on their borders, and ploughing frame u, v in pixels."""

    id: Array
    road: Array
    u: Array
    v: Array
    width: Array
    length: Array


def _blocks(world: _World) -> _Blocks:
    """Nearest of jittered points (Worley), with roads along some of the borders."""
    x = world.x + world.noise("bend x", 90) * np.float32(11)
    y = world.y + world.noise("bend y", 90) * np.float32(11)
    cy, cx = _cells(y, _BLOCK), _cells(x, _BLOCK)
    y0, x0 = int(cy.min()) - 1, int(cx.min()) - 1
    ys, xs = np.arange(y0, int(cy.max()) + 2), np.arange(x0, int(cx.max()) + 2)
    ids = hash32(ys[:, None], xs[None, :], world.salt("blocks"))
    point_x = (xs[None, :] + 0.12 + 0.76 * unit(ids)).astype(np.float32) * np.float32(_BLOCK)
    point_y = (ys[:, None] + 0.12 + 0.76 * unit(scramble(ids + np.uint32(1)))).astype(
        np.float32
    ) * np.float32(_BLOCK)
    flat = (cy - y0) * len(xs) + (cx - x0)
    near, next_ = _two_nearest(x, y, point_x.ravel(), point_y.ravel(), flat, len(xs))
    border = _distance_to_border(x, y, point_x.ravel(), point_y.ravel(), near, next_)
    ids = ids.ravel()
    lot = unit(scramble(ids[near] ^ ids[next_]))
    road = np.clip(np.float32(1.05) - border, 0, 1) * (lot < np.float32(0.55))
    dx, dy = x - point_x.ravel()[near], y - point_y.ravel()[near]
    table = _ploughing(ids)
    cos, sin, width, length = (column[near] for column in table)
    return _Blocks(ids[near], road, dx * cos + dy * sin, dy * cos - dx * sin, width, length)


def _cells(coordinate: Array, size: int) -> Array:
    return np.floor(coordinate * np.float32(1 / size)).astype(np.int32)


def _two_nearest(x: Array, y: Array, px: Array, py: Array, flat: Array, stride: int) -> tuple[Array, Array]:
    """Indices of the nearest and the next nearest of the nine points around each pixel."""
    best = np.full(x.shape, np.float32(1e9))
    second = best.copy()
    near, next_ = flat.copy(), flat.copy()
    for step in (0, -stride - 1, -stride, -stride + 1, -1, 1, stride - 1, stride, stride + 1):
        index = flat + step
        dx, dy = x - px[index], y - py[index]
        d = dx * dx + dy * dy
        closer, runner_up = d < best, d < second
        next_ = np.where(closer, near, np.where(runner_up, index, next_))
        second = np.where(closer, best, np.minimum(second, d))
        near, best = np.where(closer, index, near), np.minimum(best, d)
    return near, next_


def _distance_to_border(x: Array, y: Array, px: Array, py: Array, near: Array, next_: Array) -> Array:
    ax, ay, bx, by = px[near], py[near], px[next_], py[next_]
    across_x, across_y = bx - ax, by - ay
    middle = (x - (ax + bx) * np.float32(0.5)) * across_x + (y - (ay + by) * np.float32(0.5)) * across_y
    return np.abs(middle) / np.sqrt(across_x * across_x + across_y * across_y + np.float32(1e-6))


def _ploughing(ids: Array) -> tuple[Array, Array, Array, Array]:
    """Per block: cosine and sine of its direction, width and length of its parcels in pixels."""
    angle = unit(scramble(ids + np.uint32(2))).astype(np.float64) * math.pi
    width = np.float32(7) + np.float32(24) * unit(scramble(ids + np.uint32(3))) ** 2
    length = width * (np.float32(1.6) + np.float32(2.6) * unit(scramble(ids + np.uint32(4))))
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32), width, length


@dataclass(frozen=True)
class _Parcels:
    crop: Array
    vigour: Array
    soil: Array


def _parcels(world: _World, blocks: _Blocks) -> _Parcels:
    """Strips within each block, cut to parcels; each grows one crop."""
    strip, side = _uneven(blocks.u / blocks.width, blocks.id)
    start = unit(hash32(strip, 0, 11) ^ blocks.id)
    part, end = _uneven(blocks.v / blocks.length + start, blocks.id)
    ids = hash32(strip, part, world.salt("parcels")) ^ blocks.id
    ids = scramble(ids)
    margin = np.minimum(side * blocks.width, end * blocks.length) < np.float32(0.75)
    crop = crop_lottery()[ids % np.uint32(124)].astype(np.int32)
    # A few blocks are all grass, as valleys are.
    pasture = (unit(blocks.id) < np.float32(0.16)) | margin
    crop = np.where(pasture, np.int32(MEADOW), crop) * SHIFTS + (
        (ids >> np.uint32(8)) & np.uint32(63)
    ).astype(np.int32)
    ground = world.fractal("ground", 60, 4, 0.6)
    rows = _drills(blocks)
    vigour = np.float32(0.86) + np.float32(0.22) * unit(scramble(ids + np.uint32(5)))
    vigour += ground * np.float32(0.07) + rows * np.float32(0.03)
    soil = np.float32(0.55) * unit(scramble(ids + np.uint32(6))) + ground * np.float32(0.13) + np.float32(0.2)
    soil += world.noise("regions", 420) * np.float32(0.12) + rows * np.float32(0.05)
    return _Parcels(crop, np.clip(vigour, 0.3, 1.15), np.clip(soil, 0, 1))


def _uneven(t: Array, ids: Array) -> tuple[Array, Array]:
    """Cells of uneven width along t: int32 index, and distance to the nearest cut in cells."""
    phase = (ids & np.uint32(255)).astype(np.float32) * np.float32(1 / 256)
    wave = t * np.float32(0.37) + phase
    wave = np.abs(wave - np.floor(wave) - np.float32(0.5))
    t = t + wave * np.float32(0.9)
    index = np.floor(t)
    f = t - index
    return index.astype(np.int32), np.minimum(f, 1 - f)


def _drills(blocks: _Blocks) -> Array:
    """Faint lines along the ploughing direction, in [-1, 1]."""
    t = blocks.u * np.float32(0.23)
    return np.abs(t - np.floor(t) - np.float32(0.5)) * np.float32(4) - np.float32(1)


def _forest(world: _World, blocks: _Blocks) -> tuple[Array, Array]:
    """Share of wood, and of conifers in it. Its edges follow field blocks here and there, as real ones do."""
    owner = unit(scramble(blocks.id + np.uint32(7))) - np.float32(0.5)
    body = world.fractal("forest", 150, 5, 0.55) + owner * np.float32(1.5)
    wood = np.clip((body - np.float32(0.80)) * np.float32(9), 0, 1)
    kind = world.fractal("needles", 110, 5, 0.6) - np.float32(0.15)
    return wood, np.clip(kind * np.float32(4) + np.float32(0.5), 0, 1)


def _water(world: _World) -> tuple[Array, Array, Array]:
    """Share of water, share of silt in it, and of trees on the bank."""
    heading = 0.35 + 1.1 * world.chance("river heading")
    u = world.x * np.float32(math.cos(heading)) + world.y * np.float32(math.sin(heading))
    u += world.noise("valley", 380) * np.float32(70) + world.noise("meander", 110) * np.float32(30)
    u += world.noise("bends", 38) * np.float32(8)
    river = _from_line(u, 1900.0, 260.0 + 240.0 * world.chance("river place"))
    half = np.float32(2.9) + world.noise("width", 150) * np.float32(0.8)
    stream = np.clip(half - river + np.float32(0.5), 0, 1)
    shore = _lake_shore(world)
    water = np.maximum(stream, np.clip(shore + np.float32(0.5), 0, 1))
    silt = np.clip(stream * np.float32(0.75) + world.noise("silt", 40) * np.float32(0.1), 0, 1) * (shore < 0)
    near = np.minimum(river - half, -shore)
    bank = (near < np.float32(3.5) + world.noise("bank", 12) * np.float32(3)).astype(np.float32)
    return water, silt, bank


def _from_line(u: Array, spacing: float, first: float) -> Array:
    """Distance of coordinate u to the nearest of parallel lines."""
    t = (u - np.float32(first)) * np.float32(1 / spacing)
    return np.abs(t - np.floor(t + np.float32(0.5))) * np.float32(spacing)


def _lake_shore(world: _World) -> Array:
    """Pixels inside (positive) or outside the shore of the lake of each square; most squares have none."""
    dx, dy, ids = _square_centres(world, "lakes", _LAKE)
    radius = np.float32(28) + np.float32(62) * unit(scramble(ids + np.uint32(1)))
    radius = np.where(unit(scramble(ids + np.uint32(2))) < np.float32(0.4), radius, np.float32(-40))
    wobble = world.fractal("shore", 48, 4) * np.float32(8)
    return radius + wobble - np.sqrt(dx * dx + dy * dy * np.float32(2.2))


def _square_centres(world: _World, name: str, size: int) -> tuple[Array, Array, Array]:
    """Offset from the centre of the pixel's own square (jittered in its middle), and the square's hash."""
    cy, cx = world.rows // size, world.columns // size
    ids = hash32(cy[:, None], cx[None, :], world.salt(name))
    centre_x = (cx[None, :].astype(np.float32) + np.float32(0.35) + np.float32(0.3) * unit(ids)) * np.float32(
        size
    )
    other = unit(scramble(ids + np.uint32(9)))
    centre_y = (cy[:, None].astype(np.float32) + np.float32(0.35) + np.float32(0.3) * other) * np.float32(
        size
    )
    return world.x - centre_x, world.y - centre_y, ids


@dataclass(frozen=True)
class _Villages:
    """Shares: sealed ground, of which concrete, red roofs, asphalt and metal roofs; and gardens."""

    sealed: Array
    green: Array
    concrete: Array
    red: Array
    asphalt: Array
    metal: Array


def _villages(world: _World) -> _Villages:
    """Houses on small lots around a centre, streets between them, halls at the edge of some."""
    dx, dy, ids = _square_centres(world, "villages", _VILLAGE)
    size = np.float32(12) + np.float32(38) * unit(scramble(ids + np.uint32(1))) ** 2
    size = np.where(unit(scramble(ids + np.uint32(2))) < np.float32(0.55), size, np.float32(-30))
    inside = size - np.sqrt(dx * dx + dy * dy) + world.fractal("outskirts", 24, 3) * np.float32(7)
    turned_x, turned_y = (
        dx * np.float32(0.8) - dy * np.float32(0.6),
        dx * np.float32(0.6) + dy * np.float32(0.8),
    )
    lot_x, lot_y = np.floor(turned_x * np.float32(0.55)), np.floor(turned_y * np.float32(0.45))
    lots = scramble(hash32(lot_x.astype(np.int32), lot_y.astype(np.int32), 5) ^ ids)
    draw = unit(lots)
    street = (lot_x.astype(np.int32) % 5 == 0) | (lot_y.astype(np.int32) % 7 == 0)
    built = np.clip(inside * np.float32(0.35) + np.float32(0.5), 0, 1)
    dense = np.float32(0.42) + np.float32(0.4) * np.clip(inside * np.float32(0.04), 0, 1)
    house = (draw < dense) & ~street
    hall = unit(scramble(ids ^ (lots >> np.uint32(28)))) < np.float32(0.05)
    sealed = built * np.where(street, np.float32(0.7), np.where(house, np.float32(0.62), np.float32(0.1)))
    red = np.where(house & ~hall, np.float32(0.62), np.float32(0.05))
    metal = np.where(house & hall, np.float32(0.55), np.float32(0))
    asphalt = np.where(street, np.float32(0.75), np.float32(0.15))
    return _Villages(sealed, built, np.clip(1 - red - metal - asphalt, 0, 1), red, asphalt, metal)


def _highway(world: _World) -> Array:
    heading = 1.9 + 0.9 * world.chance("highway heading")
    u = world.x * np.float32(math.cos(heading)) + world.y * np.float32(math.sin(heading))
    u += world.noise("highway", 460) * np.float32(45)
    distance = _from_line(u, 1300.0, 650.0 * world.chance("highway place"))
    return np.clip(np.float32(1.9) - distance, 0, 1)


def _slopes(world: _World) -> tuple[Array, Array]:
    """Rise per metre to the east and to the south, of a fractal terrain that is flat here and hilly there."""
    rows = np.arange(world.rows[0] - 1, world.rows[-1] + 2)
    columns = np.arange(world.columns[0] - 1, world.columns[-1] + 2)
    hilly = np.float32(45) + np.float32(75) * np.clip(
        smooth(world.salt("hilly"), 620, rows, columns), -0.4, 2
    )
    height = fractal(world.salt("terrain"), 512, 6, rows, columns, 0.52) * hilly
    step = np.float32(1 / (2 * _PIXEL_M))
    return (height[1:-1, 2:] - height[1:-1, :-2]) * step, (height[2:, 1:-1] - height[:-2, 1:-1]) * step
