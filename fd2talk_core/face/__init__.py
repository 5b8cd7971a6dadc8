"""The face: its model, landmarks, the fit of one to the other, and how a mesh is rasterized."""
