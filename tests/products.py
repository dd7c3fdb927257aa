"""Products in the layouts in which they are delivered, made with rasterio and text alone, from real or made pixels.

Real pixels are those of data/other/native_*.npz under EOZIP_DATA (default ../shared); without them layouts hold made ones.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from rasterio.transform import Affine

DATA = Path(os.environ.get("EOZIP_DATA") or Path(__file__).parents[2] / "shared") / "data"
CORNER = 399960, 5300040
WAVELENGTHS = {
    "B1": (60, 443), "B2": (10, 492), "B3": (10, 560), "B4": (10, 665), "B5": (20, 704), "B6": (20, 740), "B7": (20, 783),
    "B8": (10, 833), "B8A": (20, 865), "B9": (60, 945), "B10": (60, 1374), "B11": (20, 1614), "B12": (20, 2202),
}  # fmt: skip
SCL_NAMES = (
    *("NODATA", "SATURATED_DEFECTIVE", "CAST_SHADOW", "CLOUD_SHADOW", "VEGETATION", "NOT_VEGETATED", "WATER"),
    *("UNCLASSIFIED", "CLOUD_MEDIUM_PROBA", "CLOUD_HIGH_PROBA", "THIN_CIRRUS", "SNOW_ICE"),
)

Grids = dict[int, dict[str, np.ndarray]]


def made(seed: int = 0, side: int = 96, level: str = "L2A") -> Grids:
    """Smooth pixels on their own grids, by metres and band ("B02"); some are nodata, one is saturated."""
    rng = np.random.default_rng(seed)
    bands = {
        10: ["B02", "B03", "B04", "B08"],
        20: ["B05", "B06", "B07", "B8A", "B11", "B12"],
        60: ["B01", "B09"],
    }
    if level == "L1C":
        bands[60].append("B10")
    grids: Grids = {}
    for metres, names in bands.items():
        size = side * 10 // metres
        y, x = np.mgrid[:size, :size] * (metres / 10)
        for i, name in enumerate(names):
            wave = 2500 + 900 * np.sin(x / 17 + i) * np.cos(y / 23) + rng.normal(0, 30, (size, size))
            band = wave.astype(np.uint16)
            band[:, : max(1, size // 12)] = 0
            grids.setdefault(metres, {})[name] = band
    grids[10]["B02"][5, 50] = 65535
    return grids


def real(place: str) -> Grids | None:
    """Pixels of one place on their own grids, of its first date; None where the data are not there."""
    path = DATA / "other" / f"native_{place}.npz"
    if not path.exists():
        return None
    grids: Grids = {}
    with np.load(path) as held:
        for metres in (10, 20, 60):
            if f"r{metres}" in held:
                names = [str(name) for name in held[f"bands{metres}"]]
                grids[metres] = dict(zip(names, held[f"r{metres}"][0]))
    return grids


def classes(side: int, seed: int = 0) -> np.ndarray:
    """A scene classification of 20 m: patches of classes 3, 4, 6, 8, 9."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice(np.array([3, 4, 4, 6, 8, 9], np.uint8), (-(-side // 8), -(-side // 8)))
    return coarse.repeat(8, 0).repeat(8, 1)[:side, :side]


def write_raster(path: Path, band: np.ndarray, metres: float, **options: object) -> None:
    """One band on the grid of a tile: JPEG 2000 (reversible) or GeoTIFF by the ending of the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    settings: dict[str, object] = {"driver": "GTiff"}
    if path.suffix == ".jp2":
        settings = {"driver": "JP2OpenJPEG", "REVERSIBLE": "YES", "QUALITY": "100"}
    settings |= {"crs": "EPSG:32632", "transform": Affine(metres, 0, CORNER[0], 0, -metres, CORNER[1])}
    settings |= options
    data = band if band.ndim == 3 else band[None]
    count, height, width = data.shape
    with rasterio.open(
        path, "w", count=count, height=height, width=width, dtype=data.dtype, **settings
    ) as file:
        file.write(data)


@dataclass
class Safe:
    """One .SAFE product to be made; `write` makes it.

    Attributes:
        grids: pixels by metres and band.
        level: "L2A" or "L1C".
        date: sensing, compact.
        baseline: "05.11" and the like.
        offset: BOA_ADD_OFFSET (or RADIO_ADD_OFFSET) of every band; None: the XML has no such list.
        offsets: by band_id, those that differ.
        tile: of the MGRS grid.
        drop: bands whose files are missing.
    """

    grids: Grids
    level: str = "L2A"
    date: str = "20220126T101311"
    baseline: str = "05.11"
    offset: int | None = -1000
    offsets: dict[int, int] = field(default_factory=dict)
    tile: str = "T32TQM"
    drop: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        digits = self.baseline.replace(".", "")
        return f"S2B_MSI{self.level}_{self.date}_N{digits}_R022_{self.tile}_{self.date[:8]}T130000.SAFE"

    @property
    def side(self) -> int:
        return len(next(iter(self.grids[10].values())))

    @property
    def granule(self) -> str:
        return f"{self.level}_{self.tile}_A025539_{self.date}"

    def write(self, folder: Path, zipped: bool = False) -> Path:
        """The product in `folder`, as a folder or as a zip file of one."""
        root = folder / self.name
        self._write_bands(root)
        if self.level == "L2A":
            self._write_beside(root)
        elif self.baseline >= "04":
            self._write_classification(root)
        (root / f"MTD_MSI{self.level}.xml").write_text(self._product_xml(), encoding="utf-8")
        (root / "GRANULE" / self.granule / "MTD_TL.xml").write_text(self._tile_xml(), encoding="utf-8")
        (root / "manifest.safe").write_text("<xfdu/>", encoding="utf-8")
        if not zipped:
            return root
        packed = shutil.make_archive(str(root.with_suffix("")), "zip", folder, self.name)
        shutil.rmtree(root)
        return Path(packed)

    def image(self, band: str, metres: int) -> str:
        """Path of a band in the product, without its ending, as the XML lists it."""
        images = f"GRANULE/{self.granule}/IMG_DATA"
        if self.level == "L1C":
            return f"{images}/{self.tile}_{self.date}_{band}"
        return f"{images}/R{metres}m/{self.tile}_{self.date}_{band}_{metres}m"

    def _write_bands(self, root: Path) -> None:
        for metres, bands in self.grids.items():
            for band, pixels in bands.items():
                if band not in self.drop:
                    write_raster(root / f"{self.image(band, metres)}.jp2", pixels, metres)
        if self.level == "L2A":  # copies that processors add
            for band, pixels in self.grids[10].items():
                if band != "B08":
                    write_raster(root / f"{self.image(band, 20)}.jp2", pixels[::2, ::2].copy(), 20)

    def _write_beside(self, root: Path) -> None:
        half = self.side // 2
        scl = classes(half)
        cloud = np.where(scl >= 8, 80, 3).astype(np.uint8)
        write_raster(root / f"{self.image('SCL', 20)}.jp2", scl, 20)
        for name in ("AOT", "WVP"):
            write_raster(root / f"{self.image(name, 20)}.jp2", np.full((half, half), 143, np.uint16), 20)
        quality = root / "GRANULE" / self.granule / "QI_DATA"
        write_raster(quality / "MSK_CLDPRB_20m.jp2", cloud, 20)
        write_raster(quality / "MSK_SNWPRB_20m.jp2", np.zeros((half, half), np.uint8), 20)

    def classification(self) -> np.ndarray:
        """MSK_CLASSI of Level-1C: opaque clouds, cirrus, snow, each 0 or 1, at 60 m."""
        side = self.side // 6
        scl = classes(self.side // 2)[: side * 3 : 3, : side * 3 : 3]
        return np.stack([scl >= 9, scl == 8, scl == 6]).astype(np.uint8)

    def _write_classification(self, root: Path) -> None:
        quality = root / "GRANULE" / self.granule / "QI_DATA"
        write_raster(quality / "MSK_CLASSI_B00.jp2", self.classification(), 60)

    def _product_xml(self) -> str:
        tag = f"Level-{self.level[1:]}_User_Product"
        day = f"{self.date[:4]}-{self.date[4:6]}-{self.date[6:8]}T{self.date[9:11]}:{self.date[11:13]}:{self.date[13:15]}"
        listed = [(band, m) for m, bands in self.grids.items() for band in bands]
        if self.level == "L2A":
            listed += [("SCL", 20), ("AOT", 20), ("WVP", 20)]
        images = "".join(f"<IMAGE_FILE>{escape(self.image(*one))}</IMAGE_FILE>" for one in listed)
        spectral = "".join(
            f'<Spectral_Information bandId="{i}" physicalBand="{band}"><RESOLUTION>{metres}</RESOLUTION><Wavelength>'
            f'<CENTRAL unit="nm">{nm}</CENTRAL></Wavelength></Spectral_Information>'
            for i, (band, (metres, nm)) in enumerate(WAVELENGTHS.items())
        )
        return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:{tag} xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{self.level[1:]}.xsd">
<n1:General_Info><Product_Info><PRODUCT_START_TIME>{day}.024Z</PRODUCT_START_TIME><PRODUCT_STOP_TIME>{day}.024Z</PRODUCT_STOP_TIME>
<PRODUCT_URI>{self.name}</PRODUCT_URI><PROCESSING_LEVEL>Level-{self.level[1:]}</PROCESSING_LEVEL>
<PRODUCT_TYPE>S2MSI{self.level[1:]}</PRODUCT_TYPE><PROCESSING_BASELINE>{self.baseline}</PROCESSING_BASELINE>
<GENERATION_TIME>{day}.000Z</GENERATION_TIME>
<Datatake datatakeIdentifier="GS2B_{self.date}_025539_N{self.baseline}"><SPACECRAFT_NAME>Sentinel-2B</SPACECRAFT_NAME>
<DATATAKE_TYPE>INS-NOBS</DATATAKE_TYPE><DATATAKE_SENSING_START>{day}.024Z</DATATAKE_SENSING_START>
<SENSING_ORBIT_NUMBER>22</SENSING_ORBIT_NUMBER><SENSING_ORBIT_DIRECTION>DESCENDING</SENSING_ORBIT_DIRECTION></Datatake>
<Query_Options completeSingleTile="true"><PRODUCT_FORMAT>SAFE_COMPACT</PRODUCT_FORMAT></Query_Options>
<Product_Organisation><Granule_List><Granule datastripIdentifier="S2B_OPER_MSI_{self.level}_DS_N{self.baseline}"
granuleIdentifier="S2B_OPER_MSI_{self.level}_TL_A025539_{self.tile}_N{self.baseline}" imageFormat="JPEG2000">
{images}</Granule></Granule_List></Product_Organisation></Product_Info>
<Product_Image_Characteristics>
<Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>
<Special_Values><SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>65535</SPECIAL_VALUE_INDEX></Special_Values>
{self._quantification()}
<Spectral_Information_List>{spectral}</Spectral_Information_List>{self._scene_classes()}</Product_Image_Characteristics>
</n1:General_Info><n1:Geometric_Info/><n1:Quality_Indicators_Info/></n1:{tag}>
"""

    def _quantification(self) -> str:
        start, entry = ("Radiometric_Offset_List", "RADIO_ADD_OFFSET")
        values = '<QUANTIFICATION_VALUE unit="none">10000</QUANTIFICATION_VALUE>'
        if self.level == "L2A":
            start, entry = "BOA_ADD_OFFSET_VALUES_LIST", "BOA_ADD_OFFSET"
            values = (
                '<QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>'
                '<AOT_QUANTIFICATION_VALUE unit="none">1000.0</AOT_QUANTIFICATION_VALUE>'
                '<WVP_QUANTIFICATION_VALUE unit="cm">1000.0</WVP_QUANTIFICATION_VALUE></QUANTIFICATION_VALUES_LIST>'
            )
        if self.offset is None:
            return values
        each = "".join(
            f'<{entry} band_id="{i}">{self.offsets.get(i, self.offset)}</{entry}>'
            for i in range(len(WAVELENGTHS))
        )
        return f"{values}<{start}>{each}</{start}>"

    def _scene_classes(self) -> str:
        if self.level == "L1C":
            return ""
        each = "".join(
            f"<Scene_Classification_ID><SCENE_CLASSIFICATION_TEXT>SC_{text}</SCENE_CLASSIFICATION_TEXT>"
            f"<SCENE_CLASSIFICATION_INDEX>{i}</SCENE_CLASSIFICATION_INDEX></Scene_Classification_ID>"
            for i, text in enumerate(SCL_NAMES)
        )
        return f"<Scene_Classification_List>{each}</Scene_Classification_List>"

    def _tile_xml(self) -> str:
        sizes = "".join(
            f'<Size resolution="{m}"><NROWS>{self.side * 10 // m}</NROWS><NCOLS>{self.side * 10 // m}</NCOLS></Size>'
            for m in (10, 20, 60)
        )
        corners = "".join(
            f'<Geoposition resolution="{m}"><ULX>{CORNER[0]}</ULX><ULY>{CORNER[1]}</ULY><XDIM>{m}</XDIM>'
            f"<YDIM>-{m}</YDIM></Geoposition>"
            for m in (10, 20, 60)
        )
        tag = f"Level-{self.level[1:]}_Tile_ID"
        d = self.date
        sensed = f"{d[:4]}-{d[4:6]}-{d[6:8]}T{d[9:11]}:{d[11:13]}:{d[13:15]}.500000Z"
        tile_id = f"S2B_OPER_MSI_{self.level}_TL_A025539_{self.tile}_N{self.baseline}"
        return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:{tag} xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-{self.level[1:]}_Tile_Metadata.xsd">
<n1:General_Info><TILE_ID metadataLevel="Brief">{tile_id}</TILE_ID>
<SENSING_TIME metadataLevel="Standard">{sensed}</SENSING_TIME></n1:General_Info>
<n1:Geometric_Info><Tile_Geocoding metadataLevel="Brief"><HORIZONTAL_CS_NAME>WGS84 / UTM zone 32N</HORIZONTAL_CS_NAME>
<HORIZONTAL_CS_CODE>EPSG:32632</HORIZONTAL_CS_CODE>{sizes}{corners}</Tile_Geocoding></n1:Geometric_Info></n1:{tag}>
"""


def write_bands(folder: Path, grids: Grids, name: str, **options: object) -> list[Path]:
    """Files of one band each; `name` has {band}, {short} ("B2") and {metres} to be filled in."""
    paths = []
    for metres, bands in grids.items():
        for band, pixels in bands.items():
            short = band if band == "B8A" else f"B{int(band[1:])}"
            paths.append(folder / name.format(band=band, short=short, metres=metres))
            write_raster(paths[-1], pixels, metres, **options)
    return paths
