"""DICOM files and folders to frames: `reader.read` is the entry."""
