"""Evidence by kind of data: native groups, cubes, other sensors, few bands, small stacks; only measured samples count.

`sets` reads what a TOML file lists, `contenders` codes it, `measure` keeps points in one JSON file that a later run
continues, `tables` puts them into words; `eozip evaluate SETS.toml --out FOLDER` does it all.
"""
