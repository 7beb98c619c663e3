"""Parts of a checkpoint, and how it is kept on a disk."""
