"""From a source of atmospheric data to the training store and its normals."""
