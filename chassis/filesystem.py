"""Folders of a configured root: a local one or an object store's, by the same calls."""

from pyarrow import fs

from chassis.config import LakeConfig


def opened(config: LakeConfig, name: str = "") -> tuple[fs.FileSystem, str]:
    """The file system of the root, and the path of `name` within it."""
    root = config.table(name).rstrip("/")
    if "://" not in root:
        return fs.LocalFileSystem(), root
    files, folder = fs.FileSystem.from_uri(root)
    return files, folder
