"""One file for each format that others keep extracted regions in.

A format is found by the name of its file, and has

- `Reader`, a `region_files.contract.Reader`: one file (or folder) of it;
- `GLOB`: which files of a folder belong to it, '' where a folder is one file;
- `ISOLATED`: whether a library reads it that can crash on damage: it is then
  opened in a process of its own;
- `BOXES`, `CLASSES`: in words, what the format says of boxes and class ids;
- `Writer`, where data can leave in it: a `region_files.contract.Writer`.

The first lines of each file say which fields there are. What all formats share
is in `region_files/`; `region_files/source.py` reads any of them by name.
"""
