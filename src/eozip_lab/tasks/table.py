"""The recipe of `eozip evaluate-tasks`: one row a task. CONTRIBUTING.md says how to add one."""

from __future__ import annotations

from eozip_lab.tasks.task import Measure, Task

TASKS = (
    Task(
        "clouds",
        "Cloud masks by s2cloudless, L1C, cells of 20 m; the reference is its mask of original pixels",
        data="data:clouds",
        judge="clouds:Clouds",
        measures=(
            Measure("cloud IoU", "intersection over union of cloud masks, decoded against original"),
            Measure("cells alike", "cells with the same verdict"),
            Measure(
                "thin cloud kept",
                "of cells that s2cloudless was unsure of (0.4 to 0.7) and called cloud",
                subject="thin clouds",
            ),
            Measure("clear kept clear", "of clear cells"),
        ),
        needs=("s2cloudless", "cv2"),
    ),
    Task(
        "water",
        "Water by a classifier (gradient boosted trees, four folds split by place) against labels, 30 m",
        data="data:water",
        judge="water:Water",
        measures=(
            Measure(
                "water IoU", "against labels; trained on originals, applied to decoded pixels", truth=True
            ),
            Measure("water IoU, trained on decoded", "trained on and applied to decoded pixels", truth=True),
            Measure(
                "small waters found",
                "pixels of labelled waters up to 25 pixels (2.2 ha)",
                truth=True,
                subject="small water bodies",
            ),
            Measure(
                "dark land kept dry",
                "dark pixels (SWIR below 0.08) that are labelled as land",
                truth=True,
                subject="dark targets",
            ),
        ),
        needs=("sklearn",),
    ),
    Task(
        "phenology",
        "Start of season: double logistic fitted to NDVI of 59 to 72 dates, pixel by pixel",
        data="data:seasons",
        judge="phenology:Phenology",
        measures=(
            Measure("start within 5 days", "of pixels whose original series has a season"),
            Measure("start of season, days off", "mean difference, counted to 60 days", 1, more=False),
            Measure("NDVI error x 1000", "mean absolute error over clear observations", 1000, more=False),
        ),
        series=True,
    ),
    Task(
        "indices",
        "NDVI, NDWI and NBR of single pixels",
        data="data:land",
        judge="indices:Indices",
        measures=(
            Measure("NDVI error x 1000", "mean absolute error", 1000, more=False),
            Measure(
                "NDVI error x 1000, dark", "in the darkest tenth of the pixels (red + NIR)", 1000, more=False
            ),
            Measure("NDWI error x 1000", "mean absolute error", 1000, more=False),
            Measure("NBR error x 1000", "mean absolute error", 1000, more=False),
        ),
    ),
    Task(
        "land cover",
        "Unsupervised land cover: k-means of six classes, chip by chip",
        data="data:land",
        judge="landcover:LandCover",
        measures=(
            Measure("class alike", "pixels that classes learnt from originals sort alike"),
            Measure(
                "class alike, dark", "the same in the darkest tenth of the pixels", subject="dark targets"
            ),
            Measure(
                "adjusted Rand, learnt anew", "classes learnt from decoded pixels against those of originals"
            ),
        ),
        needs=("sklearn",),
    ),
    Task(
        "change",
        "Change between two Septembers in forests: fall of NBR by 0.1 and more",
        data="data:pairs",
        judge="change:Change",
        measures=(
            Measure("change IoU", "of change maps, decoded against original"),
            Measure("small changes found", "pixels of changes up to 9 pixels", subject="small changes"),
            Measure("unchanged kept", "of pixels that did not change"),
        ),
        series=True,
    ),
    Task(
        "events",
        "Floods and fires of one date in a series: real series, made-up events of real water's and scaled spectra",
        data="events:eventful",
        judge="events:Events",
        measures=(
            Measure("event found, 1 pixel", "of pixels of events, by NDWI or NBR against the dates beside"),
            Measure("event found, 2 x 2", "the same"),
            Measure("event found, 4 x 4", "the same"),
            Measure("event found, 8 x 8", "the same"),
            Measure("nothing made up", "pixels without an event that show none"),
        ),
        series=True,
    ),
    Task(
        "filling",
        "The same events beside clouds that hide half of the date, filled by `eozip inpaint`",
        data="events:clouded",
        judge="events:Filling",
        measures=(
            Measure(
                "measured event as measured", "pixels of events that no cloud hid: unchanged to the last bit"
            ),
            Measure("measured pixels as measured", "all pixels that no cloud hid"),
            Measure("hidden event found", "pixels of events below clouds that the filling shows"),
            Measure("hidden pixels marked", "pixels below clouds that are marked as invented"),
        ),
        series=True,
        fills=True,
    ),
)
"""All tasks; headings, notes and tables of results/tasks.md follow from these rows."""
