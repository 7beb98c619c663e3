"""One file for each format that others keep extracted regions in.

A format is found by the name of its file, and has a `Reader` (a
`regions.Reader`, over one of the containers in `regions/containers.py`) and,
where data can leave in it, a `Writer` (a `regions.Writer`). The first lines of
each file say which fields there are; `regions/source.py` reads any of them.
"""
